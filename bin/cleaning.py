"""Ends all processes that use a temporary data directory, with its database server, and removes the directory."""

import os
import shutil
from pathlib import Path

import psutil

from pipedai.embedded.server import EmbeddedPostgres

_VARIABLE = "PIPEDAI_DATA_DIR"
_PATIENCE_SECONDS = 5


def clean_up(data_dir: Path) -> None:
    """Ends the processes and removes the directory. The calling process and its ancestors must not use it any more."""
    while users := _users_of(data_dir):
        # They get little time to end: with more, some would start the database server again for their last statements.
        for process in users:
            process.terminate()
        _, stubborn = psutil.wait_procs(users, timeout=_PATIENCE_SECONDS)
        for process in stubborn:
            process.kill()
    EmbeddedPostgres(data_dir).stop()
    shutil.rmtree(data_dir)


def _users_of(data_dir: Path) -> list[psutil.Process]:
    """Returns the processes whose environment names the directory, without this process."""
    users = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_VARIABLE) == str(data_dir):
                users.append(process)
        except psutil.Error:
            continue  # the process is another user's, or has ended
    return users


if __name__ == "__main__":
    clean_up(Path(os.environ[_VARIABLE]))
