"""Finds out who may reach a path, and refuses directories that are not private."""

import stat
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.programs import User, run


def passes(user: User, test: str, path: Path) -> bool:
    """Whether the shell's `test` command succeeds for `path` as `user`.

    The kernel decides, so access control lists count too.
    """
    return run("/bin/sh", "-c", f'test {test} "$1"', "sh", path, user=user).code == 0


def first_closed(user: User, path: Path) -> Path | None:
    """Return the first directory on the way to `path`, or `path` itself, that `user` may not enter, or None."""
    if passes(user, "-x", path):
        return None
    way = (*reversed(path.parents), path)
    return next((directory for directory in way if not passes(user, "-x", directory)), path)


def verify_private(directory: Path, owner: User) -> None:
    """Raise an error if a directory is not private.

    It must not be a symbolic link, must belong to `owner`, and must be closed to its group and to others.
    """
    with explaining(f"use {directory}"):
        found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedPostgresError(f"{directory} must be a directory, and no link to one.")
    if found.st_uid != owner.uid:
        raise EmbeddedPostgresError(
            f"{directory} belongs to uid {found.st_uid} and not to the database server's {owner}:"
            " remove it if it is not yours, or set PIPEDAI_DATA_DIR to another directory."
        )
    if found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"Others may enter {directory}: run `chmod 700` on it.")
