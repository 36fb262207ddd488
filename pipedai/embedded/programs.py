"""Runs other programs as a given user. Every failure is an EmbeddedPostgresError, a sentence for the operator."""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# The only environment variables that programs get. Ours contain keys, which a server that runs longer than we do must
# not keep. The time zone and locale are fixed, so that the server's log and sort order don't depend on the user who
# started it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_WORST_FIRST = (
    re.compile(r"(?:PANIC|FATAL): +(.+)"),
    re.compile(r"ERROR: +(.+)"),
    re.compile(r"^\w+: error: (.+)", re.MULTILINE),
)


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used. The message is one sentence on the reason, and contains no secret."""


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into an EmbeddedPostgresError, whose sentence begins "Cannot" and `doing`."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(f"Cannot {doing}: {error.strerror or error}.") from error


@dataclass(frozen=True)
class User:
    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()

    def __str__(self) -> str:
        return f"uid {self.uid}"


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, and the text that it wrote to its output and error output."""

    code: int
    text: str

    @property
    def complaint(self) -> str | None:
        """The line of the program's output that best explains its failure, without its full stop, or None."""
        if "No space left on device" in self.text or "Check free disk space" in self.text:
            return "the disk is full"
        for pattern in _WORST_FIRST:
            if found := pattern.search(self.text):
                return found[1].strip().rstrip(".")
        return None

    @property
    def reason(self) -> str:
        if self.complaint is not None:
            return self.complaint
        lines = self.text.strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it ended with code {self.code}"


def run(
    *command: str | Path,
    user: User,
    stdin: str = "",
    inherit: Sequence[int] = (),
    timeout: float = 120,
) -> Outcome:
    """Run a program to its end as `user`, in a session of its own that Ctrl-C does not reach. It and its children keep
    the files in `inherit` open. `timeout` is in seconds.
    """
    name = Path(command[0]).name
    # The output goes to a file. A server that the program starts would keep a pipe open, and we would wait for its end.
    with (
        explaining(f"run {name} as {user}"),
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        try:
            ended = subprocess.run(  # noqa: S603
                [str(word) for word in command],
                input=stdin,
                text=True,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=ENVIRONMENT,
                umask=0o077,
                pass_fds=inherit,
                start_new_session=True,
                timeout=timeout,
                check=False,
                user=None if user.is_us else user.uid,
                group=None if user.is_us else user.gid,
                extra_groups=None if user.is_us else (),
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedPostgresError(f"{name} took more than {timeout:.0f} seconds.") from None
        said.seek(0)
        return Outcome(ended.returncode, said.read())


def passes(user: User, test: str, path: Path) -> bool:
    """Asks the shell's `test` as `user`, so that the kernel decides and access control lists count too."""
    return run("/bin/sh", "-c", f'test {test} "$1"', "sh", path, user=user).code == 0


def first_closed(user: User, path: Path) -> Path | None:
    """Return the first directory on the way to `path`, or `path` itself, that `user` may not enter, or None."""
    if passes(user, "-x", path):
        return None
    way = (*reversed(path.parents), path)
    return next((directory for directory in way if not passes(user, "-x", directory)), path)


def verify_private(directory: Path, owner: User) -> None:
    """Raise an error if it is a symbolic link, is not `owner`'s, or is open to its group or others."""
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
