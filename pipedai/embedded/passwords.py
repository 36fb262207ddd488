"""Keeps the generated passwords of the server's two roles in a file that only we can read."""

import json
import os
import secrets
from pathlib import Path

from pipedai.embedded.programs import EmbeddedPostgresError, explaining

SUPERUSER = "postgres"
APPLICATION = "pipedai"

HOW_TO_RENEW = (
    "restore it, or remove it and run `manage.py pg stop` and then `manage.py pg start`,"
    " which makes new passwords"
)


def generate() -> dict[str, str]:
    return {role: secrets.token_urlsafe(32) for role in (SUPERUSER, APPLICATION)}


def read(path: Path) -> dict[str, str] | None:
    with explaining(f"read {path}"):
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
    with os.fdopen(file) as opened:
        found = os.fstat(file)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise EmbeddedPostgresError(
                f"{path} must be yours alone (uid {os.geteuid()}, mode 600):"
                " run `chown` and `chmod 600` on it."
            )
        try:
            kept = json.load(opened)
            return {role: str(kept[role]) for role in (SUPERUSER, APPLICATION)}
        except (ValueError, KeyError, TypeError):
            raise EmbeddedPostgresError(f"{path} is damaged: {HOW_TO_RENEW}.") from None


def write(path: Path, kept: dict[str, str]) -> None:
    """Replace the whole file at once, so that a reader sees the old file or the new one. Only one process may write."""
    draft = path.with_name(f"{path.name}.new")
    with explaining(f"write {path}"):
        draft.unlink(missing_ok=True)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as opened:
            json.dump(kept, opened)
            opened.flush()
            os.fsync(file)
        draft.replace(path)
