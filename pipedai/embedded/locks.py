"""Tells whether an embedded PostgreSQL server is alive, by its processes and the kernel's locks."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipedai.embedded.programs import EmbeddedPostgresError, explaining


@contextmanager
def only_one(lock: Path, *, seconds: float) -> Iterator[int]:
    """Hold the lock alone, after waiting for it at most `seconds`. Yields its open file."""
    deadline = time.monotonic() + seconds
    with _opened(lock) as file:
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"Another process has been busy with the database server"
                    f" for {seconds:.0f} seconds and holds {lock}."
                )
            time.sleep(0.02)
        yield file


@contextmanager
def if_free(lock: Path) -> Iterator[int | None]:
    """Yield the open file, or None if another process holds it. Programs that inherit the file keep the lock."""
    with _opened(lock) as file:
        yield file if _try_lock(file) else None


def server_pids(cluster: Path) -> set[int]:
    """Return the PostgreSQL processes that work in `cluster`. They may be of a server whose directory was removed: it
    soon removes its socket, and a new one must not start before.
    """
    return {process.pid for process in psutil.process_iter() if _works_in(process, cluster)}


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    try:
        if process.name() != "postgres":
            return False
        return process.cwd().removesuffix(" (deleted)") == str(cluster)
    # psutil can't read a process that has ended, is a zombie, or is another user's.
    except psutil.Error:
        return False


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    with explaining(f"write {lock}"):
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    with explaining("lock a file in the data directory"):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
