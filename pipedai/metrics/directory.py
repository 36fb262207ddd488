"""Manages the directory in which web processes share their metrics: each start makes a new one, each end removes it."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

# prometheus_client reads this variable once, when it is first imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "pipedai-metrics-"


def make_directory() -> Path:
    """Make a new directory for this process and its forks, and remove those of master processes that were killed."""
    _remove_orphans()
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    os.environ[VARIABLE] = str(path)
    return path


def forget_process(pid: int, directory: Path) -> None:
    """Delete the gauges of a process that has ended in any way. Its counters are kept."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def remove_directory(directory: Path) -> None:
    """Remove the directory when the master process ends."""
    shutil.rmtree(directory, ignore_errors=True)


def leave_directory() -> None:
    """Let this process keep its metrics to itself, even if it inherited a directory."""
    os.environ.pop(VARIABLE, None)


def _remove_orphans() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)) and _is_ours(path):
            remove_directory(path)


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid() and path.is_dir() and not path.is_symlink()
    except OSError:
        return False
