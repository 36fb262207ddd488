"""Tells whether a cluster's server lives, by locks that the kernel drops and by looking; never by a written pid."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipedai.embedded.errors import EmbeddedPostgresError, explaining


@contextmanager
def starting(lock: Path, *, seconds: float) -> Iterator[int]:
    """Be the only one who makes, starts or stops this server; gives the lock's file number."""
    deadline = time.monotonic() + seconds
    with _opened(lock) as file:
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"Another process has been busy with the database server for {seconds:.0f} seconds"
                    f" (it holds {lock})."
                )
            time.sleep(0.02)
        yield file


@contextmanager
def to_hand_on(lock: Path) -> Iterator[int | None]:
    """The run lock's file number, to be inherited by a new server; None while an old one holds it."""
    with _opened(lock) as file:
        yield file if _try_lock(file) else None


def server_processes(cluster: Path) -> list[psutil.Process]:
    """The PostgreSQL processes at work in `cluster`; a server's working directory is its cluster."""
    return [process for process in psutil.process_iter() if _works_in(process, cluster)]


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == str(cluster)
    except psutil.Error:  # gone, a zombie, or somebody else's
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
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
