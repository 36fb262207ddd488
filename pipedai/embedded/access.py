"""Asks who may reach a path, and refuses what is not private."""

import stat
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.programs import User, run


def passes(user: User, test: str, path: Path) -> bool:
    """Whether test(1) holds for `path` as `user`: the kernel's word, access lists and all."""
    return run("/bin/sh", "-c", f'test {test} "$1"', "sh", path, user=user).code == 0


def first_closed(user: User, path: Path) -> Path | None:
    """The first directory on the way to `path`, itself included, that `user` may not pass."""
    if passes(user, "-x", path):
        return None
    way = (*reversed(path.parents), path)
    return next((directory for directory in way if not passes(user, "-x", directory)), path)


def verify_private(directory: Path, owner: User) -> None:
    """Refuse a symbolic link, another owner, and any access for group or others."""
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
