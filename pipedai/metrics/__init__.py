"""Prometheus metrics of the processes (docs/metrics.md). Without METRICS_TOKEN only this module is imported.

This module makes the directory in which the web processes of one service share their metrics while the service runs.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

# The environment variable that names the directory. prometheus_client reads it once, when it is first imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "pipedai-metrics-"


def make_directory() -> Path:
    """Make a new directory for this process and its forks, and remove those of killed processes."""
    for orphan in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = orphan.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)) and _is_ours(orphan):
            remove_directory(orphan)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    os.environ[VARIABLE] = str(path)
    return path


def forget_process(pid: int, directory: Path) -> None:
    """Delete the gauges of a web process that has ended. Its counters stay a part of the service's totals."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def remove_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid() and path.is_dir() and not path.is_symlink()
    except OSError:
        return False
