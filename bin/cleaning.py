"""Removes a temporary data directory, after ending its database server and all processes that use it."""

import os
import shutil
from pathlib import Path

import psutil

from pipedai.embedded.server import EmbeddedPostgres

_VARIABLE = "PIPEDAI_DATA_DIR"
_PATIENCE_SECONDS = 5


def clean_up(data_dir: Path) -> None:
    """The calling process and its ancestors must no longer use the directory, or they would be ended too."""
    while users := _users_of(data_dir):
        # The processes get only a few seconds to end. With more time, some would start the database server again for
        # their last statements.
        for process in users:
            process.terminate()
        _, stubborn = psutil.wait_procs(users, timeout=_PATIENCE_SECONDS)
        for process in stubborn:
            process.kill()
    EmbeddedPostgres(data_dir).stop()
    shutil.rmtree(data_dir)


def _users_of(data_dir: Path) -> list[psutil.Process]:
    """Returns the processes whose environment names this data directory, except the calling process."""
    users = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_VARIABLE) == str(data_dir):
                users.append(process)
        except psutil.Error:
            # Skip a process that belongs to another user or has ended.
            continue
    return users


if __name__ == "__main__":
    clean_up(Path(os.environ[_VARIABLE]))
