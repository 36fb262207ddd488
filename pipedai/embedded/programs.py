"""Runs other programs as a given user, and holds the locks that tell whether the server is alive. Every failure is an
EmbeddedPostgresError, a sentence for the operator.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

# The only environment variables that programs get. Ours contain keys, which a server that runs longer than we do must
# not keep. The time zone and locale are fixed, so that the server's log and sort order don't depend on the user who
# started it.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# A server that starts answers those who ask whether it is ready by an error, which is none.
_COMPLAINT = re.compile(r"(?:PANIC|FATAL|ERROR|error): +(?! |the database system is )(.+)")


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used. The message is one sentence on the reason, and contains no secret."""


@contextmanager
def explaining(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into an EmbeddedPostgresError, whose sentence begins "Cannot" and `doing`."""
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(f"Cannot {doing}: {error.strerror or error}.") from error


class User(NamedTuple):
    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()


class Outcome(NamedTuple):
    """How a program ended: its exit code, and the text that it wrote to its output and error output."""

    code: int
    text: str

    @property
    def reason(self) -> str:
        """The first error in the text, or else the last line, without its full stop."""
        found = _COMPLAINT.search(self.text)
        lines = [found[1]] if found else self.text.strip().splitlines()
        return lines[-1].strip().rstrip(".") if lines else f"it ended with code {self.code}"


def run(*command: str | Path, user: User, stdin: str = "", inherit: Sequence[int] = ()) -> Outcome:
    """Run a program to its end as `user`, in a session of its own that Ctrl-C does not reach. It and its children keep
    the files in `inherit` open.
    """
    # The output goes to a file, because a child that goes on would keep a pipe open, and we would wait for its end.
    with (
        explaining(f"run {command[0]} as uid {user.uid}"),
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
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
            check=False,
            user=None if user.is_us else user.uid,
            group=None if user.is_us else user.gid,
            extra_groups=None if user.is_us else (),
        )
        said.seek(0)
        return Outcome(ended.returncode, said.read())


@contextmanager
def if_free(lock: Path, *, seconds: float = 0) -> Iterator[int | None]:
    """Yield the open file of the lock, or None if another process holds it for so long. Programs that inherit the file
    keep the lock.
    """
    deadline = time.monotonic() + seconds
    with explaining(f"write {lock}"):
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                yield None
            else:
                yield file
            return
    finally:
        os.close(file)


@contextmanager
def only_one(lock: Path, *, seconds: float) -> Iterator[int]:
    """Hold the lock alone, after waiting for it at most `seconds`. Yields its open file."""
    with if_free(lock, seconds=seconds) as file:
        if file is None:
            raise EmbeddedPostgresError(
                f"Another process has been busy with the database server"
                f" for {seconds:.0f} seconds and holds {lock}."
            )
        yield file


def server_pids(cluster: Path) -> set[int]:
    """Return the PostgreSQL processes that work in `cluster`, also if that directory has been removed meanwhile."""
    found = set()
    for process in psutil.process_iter():
        # psutil can't read a process that has ended, is a zombie, or is another user's.
        with suppress(psutil.Error):
            is_one = process.name() == "postgres"
            if is_one and process.cwd().removesuffix(" (deleted)") == str(cluster):
                found.add(process.pid)
    return found
