"""Gives each command the API, the output and the person's key, which a keyring or a private file keeps."""

import contextlib
import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from pipedai_cli.api import Api, Exit, Failure, Json, wrong_usage
from pipedai_cli.output import Output, shorten

DEFAULT_PROFILE = "default"
_SERVICE = "pipedai"


@dataclass(frozen=True, slots=True)
class Profile:
    """A key, and the service and environment for which it is good. `key` is empty in the file if the keyring has it."""

    url: str
    environment_id: str
    environment_name: str = ""
    role: str = ""
    expires_at: str | None = None
    key: str = field(default="", repr=False)


def config_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "pipedai"


def load_profile(name: str) -> Profile | None:
    """Return the profile of this name with its key. Raises Failure if the file can't be read."""
    found = _read().get(name)
    if found is None:
        return None
    try:
        profile = Profile(**found)
    except TypeError:
        raise _unreadable("it was written by another version") from None
    if not profile.key:
        with _keyring() as keyring:
            found = keyring.get_password(_SERVICE, name) if keyring else None
            profile = replace(profile, key=found or "")
    return profile


def save_profile(name: str, profile: Profile) -> str:
    """Keep a profile, and return in words where its key is."""
    kept, where = profile, str(_path())
    with _keyring() as keyring:
        if keyring:
            keyring.set_password(_SERVICE, name, profile.key)
            kept, where = replace(profile, key=""), "the system's keyring"
    _write({**_read(), name: asdict(kept)})
    return where


def remove_profile(name: str) -> None:
    profiles = _read()
    profiles.pop(name, None)
    _write(profiles)
    with _keyring() as keyring:
        if keyring:
            keyring.delete_password(_SERVICE, name)


def _path() -> Path:
    return config_folder() / "keys.json"


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
        config_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=config_folder(), prefix="keys-")
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


@contextlib.contextmanager
def _keyring() -> Iterator[Any]:
    """Give the keyring package, or None if it is not installed or this system has no keyring that works."""
    try:
        import keyring
        from keyring.backends.fail import Keyring as NoKeyring

        works = not isinstance(keyring.get_keyring(), NoKeyring)
    except Exception:
        # Choosing a backend fails in many ways, for example if PYTHON_KEYRING_BACKEND names one that is not installed.
        works = False
    # Every backend has errors of its own, also for a keyring that nobody unlocks.
    with contextlib.suppress(Exception):
        yield keyring if works else None


# A limit above the number of rows of any environment. All rows are read, because a name must fit only one of them.
_ALL = 100_000

P = ParamSpec("P")
R = TypeVar("R")

# A key or a name may be as long as an id, and have as many hyphens.
_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# If a name is not found, the error lists at most this many names that exist.
_MOST_NAMES = 5
_LONGEST_NAME = 60


@dataclass
class Session:
    profile_name: str = DEFAULT_PROFILE
    as_json: bool = False

    @cached_property
    def out(self) -> Output:
        return Output(as_json=self.as_json)

    @cached_property
    def profile(self) -> Profile:
        """The key of PIPEDAI_KEY, for programs, else that of the profile. Raises Failure if nobody has signed in."""
        # Files that variables are read from often end with a line break. An error about the header would show the key.
        if key := os.environ.get("PIPEDAI_KEY", "").strip():
            if not re.fullmatch(r"\w+", key, re.ASCII):
                raise wrong_usage("PIPEDAI_KEY is no key: letters, digits and underscores.")
            url = os.environ.get("PIPEDAI_URL")
            if not url:
                raise wrong_usage("PIPEDAI_KEY is set, but PIPEDAI_URL, the service's URL, is not.")
            return Profile(url=url, environment_id="", key=key)
        profile = load_profile(self.profile_name)
        if profile is None or not profile.key:
            raise wrong_usage(f"You are not signed in. `{self._login} --url URL` does it.")
        return profile

    @property
    def _login(self) -> str:
        is_default = self.profile_name == DEFAULT_PROFILE
        return "pipedai login" if is_default else f"pipedai --profile {self.profile_name} login"

    @cached_property
    def api(self) -> Api:
        return Api(self.profile.url, self.profile.key)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "api" in vars(self):
            self.api.close()

    @cached_property
    def environment_id(self) -> str:
        return self.profile.environment_id or str(self.api.get("/whoami")["environmentId"])

    @property
    def environment(self) -> str:
        """The path of the key's environment."""
        return f"/environments/{self.environment_id}"

    def rows(self, kind: str, most: int, **params: Any) -> Iterator[Json]:
        """Yield up to `most` rows of the environment of this kind, such as `triggers`."""
        return self.api.items(f"{self.environment}/{kind}", most, **params)

    def show_rows(
        self,
        kind: str,
        most: int,
        columns: Mapping[str, str | Callable[[Json], object]],
        *,
        none: str = "",
        **params: Any,
    ) -> None:
        """Write rows of the environment as a table, or as JSON as the API has them. Each of the `columns` is the name
        of a field, or a function that returns a row's cell.
        """
        found = [*self.rows(kind, most, **params)]
        if not self.out.printed_json({"items": found}):
            cells = [
                [row.get(cell) if isinstance(cell, str) else cell(row) for cell in columns.values()]
                for row in found
            ]
            self.out.table(tuple(columns), cells, none=none or f"There are no {kind}.")

    def id_of(self, kind: str, given: str | None) -> str | None:
        return str(found_by(self, kind, given)["id"]) if given else None

    def console(self, path: str = "") -> str:
        """Return the URL of a page of the console."""
        return f"{self.api.url}/console/{path}"


def examples(*lines: str) -> str:
    """Return the end of a command's help, with command lines, which click must not wrap."""
    return "\b\n" + "\n".join(f"  {line}" for line in lines)


# Passes the Session to a command.
with_session = click.make_pass_decorator(Session, ensure=True)


def found_by(session: Session, kind: str, given: str) -> dict[str, Any]:
    """Return the row of a kind (`triggers`) with this id, key or whole name. Raises Failure for none or several."""
    if _ID.fullmatch(given):
        row: dict[str, Any] = session.api.get(f"/{kind}/{given}")
        return row
    rows = [*session.rows(kind, _ALL)]
    fitting = [row for row in rows if given in {row.get("key"), row.get("name")}]
    if len(fitting) == 1:
        return fitting[0]
    what = kind.removesuffix("s")
    if not fitting:
        names = [shorten(str(row.get("key") or row.get("name")), _LONGEST_NAME) for row in rows]
        near = difflib.get_close_matches(given, names, _MOST_NAMES, 0.5) or names[:_MOST_NAMES]
        there = f"There is {', '.join(near)}" if names else "There is none"
        others = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
        raise Failure(
            Exit.REFUSED, f"No {what} has the id, key or name “{given}”. {there}{others}."
        )
    ids = ", ".join(row["id"] for row in fitting)
    raise wrong_usage(f"{len(fitting)} {kind} have the name “{given}”: give one of the ids {ids}.")


def with_json(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Pass the Session to a command that shows something, and let it take --json."""

    def set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Session).as_json = True

    option = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=set_json,
        help="Print the API's JSON.",
    )
    return option(with_session(function))


def with_limit(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Pass the Session to a command that lists rows, and let it take --json and --limit."""
    option = click.option(
        "--limit",
        type=click.IntRange(1, 10_000),
        default=20,
        show_default=True,
        help="How many, at most.",
    )
    return option(with_json(function))
