"""Keeps the generated passwords of the server's two roles in a file that only its owner can read."""

import json
import os
import secrets
import stat
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining

SUPERUSER = "postgres"
APPLICATION = "pipedai"


def generate() -> dict[str, str]:
    """A new password of 256 bits for each role."""
    return {role: secrets.token_urlsafe(32) for role in (SUPERUSER, APPLICATION)}


def read(path: Path) -> dict[str, str] | None:
    """Each role's password; None if there is no file yet."""
    try:
        with explaining(f"read {path}"):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except EmbeddedPostgresError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with os.fdopen(file) as opened:
        found = os.fstat(file)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise EmbeddedPostgresError(
                f"{path} must be yours alone: run `chown` and `chmod 600` on it."
            )
        try:
            kept = json.load(opened)
            return {role: str(kept[role]) for role in (SUPERUSER, APPLICATION)}
        except (ValueError, KeyError, TypeError):
            raise EmbeddedPostgresError(
                f"{path} is damaged: restore it, or remove it to have new passwords made."
            ) from None


def write(path: Path, kept: dict[str, str]) -> None:
    """Replace the file as a whole; a reader sees the old one or the new one."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with explaining(f"write {path}"):
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as opened:
            json.dump(kept, opened)
            opened.flush()
            os.fsync(file)
        draft.replace(path)
