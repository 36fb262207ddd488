"""Keeps the keys of this person: in the system's keyring if there is one, else in a file that only they can read."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipedai_cli.api import Failure, wrong_usage

DEFAULT_PROFILE = "default"
_SERVICE = "pipedai"
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Profile:
    """A key and where it is good. `key` is empty in the file if the keyring has it."""

    url: str
    environment_id: str
    environment_name: str = ""
    role: str = ""
    expires_at: str | None = None
    key: str = field(default="", repr=False)


def folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "pipedai"


def load(name: str) -> Profile | None:
    """Return the profile of this name with its key. Raises Failure if the file can't be read."""
    found = _read().get(name)
    if found is None:
        return None
    try:
        profile = Profile(**found)
    except TypeError:
        raise _unreadable("it was written by another version") from None
    if not profile.key:
        profile = Profile(**{**asdict(profile), "key": _from_keyring(name)})
    return profile


def save(name: str, profile: Profile) -> str:
    """Keep a profile, and return in words where its key is."""
    in_keyring = _to_keyring(name, profile.key)
    kept = {**asdict(profile), "key": "" if in_keyring else profile.key}
    _write({**_read(), name: kept})
    return "the system's keyring" if in_keyring else str(_path())


def remove(name: str) -> None:
    profiles = _read()
    profiles.pop(name, None)
    _write(profiles)
    with _keyring() as keyring:
        if keyring:
            keyring.delete_password(_SERVICE, name)


def _path() -> Path:
    return folder() / "keys.json"


def _read() -> dict[str, Any]:
    try:
        profiles = json.loads(_path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(str(error)) from None
    if not isinstance(profiles, dict):
        raise _unreadable("it is no JSON object")
    return profiles


def _write(profiles: dict[str, Any]) -> None:
    """Replace the file in one step, so that a crash leaves the old one. `mkstemp` makes files of mode 600."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder(), prefix="keys-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(profiles, file, indent=2)
            Path(name).replace(_path())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise wrong_usage(f"{_path()} can't be written: {error.strerror}.") from None


def _unreadable(why: str) -> Failure:
    return wrong_usage(
        f"{_path()} can't be read ({why}). `pipedai login` after removing it makes it anew."
    )


def _from_keyring(name: str) -> str:
    with _keyring() as keyring:
        return (keyring.get_password(_SERVICE, name) or "") if keyring else ""


def _to_keyring(name: str, key: str) -> bool:
    kept = False
    with _keyring() as keyring:
        if keyring:
            keyring.set_password(_SERVICE, name, key)
            kept = True
    return kept


@contextlib.contextmanager
def _keyring() -> Iterator[Any]:
    """Give the keyring package, or None if it is not installed or this system has no keyring that works."""
    try:
        import keyring
        from keyring.backends.fail import Keyring as NoKeyring
    except ImportError:
        yield None
        return
    # Every backend has errors of its own, also for a keyring that nobody unlocks.
    with contextlib.suppress(Exception):
        yield None if isinstance(keyring.get_keyring(), NoKeyring) else keyring
