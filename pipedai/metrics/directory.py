"""The directory in which a site's web processes share their metrics: fresh at each start, gone at the end."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

# prometheus_client reads it, once, when it is first imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "pipedai-metrics-"


def make_directory() -> Path:
    """A new one, for this process and those that it forks; those of killed masters are removed."""
    _remove_orphans()
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    os.environ[VARIABLE] = str(path)
    return path


def forget_process(pid: int, directory: Path) -> None:
    """Drop the gauges of a process that has ended, however it did. What it counted stays counted."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def remove_directory(directory: Path) -> None:
    """At the end."""
    shutil.rmtree(directory, ignore_errors=True)


def leave_directory() -> None:
    """For a process that keeps its metrics to itself, whatever it inherited."""
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
