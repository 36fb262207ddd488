"""Ends whatever still uses a temporary data directory, its database server too, and removes it."""

import os
import shutil
from pathlib import Path

import psutil

from pipedai.embedded.server import EmbeddedPostgres

_VARIABLE = "PIPEDAI_DATA_DIR"
_PATIENCE_SECONDS = 5


def clean_up(data_dir: Path) -> None:
    """Must be called from a process whose ancestors use it no more."""
    while users := _users_of(data_dir):
        # Had they time, they would start the server again to say goodbye to it.
        for process in users:
            process.terminate()
        _, stubborn = psutil.wait_procs(users, timeout=_PATIENCE_SECONDS)
        for process in stubborn:
            process.kill()
    EmbeddedPostgres(data_dir).stop()
    shutil.rmtree(data_dir)


def _users_of(data_dir: Path) -> list[psutil.Process]:
    """The processes whose environment names it, but for this one."""
    users = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_VARIABLE) == str(data_dir):
                users.append(process)
        except psutil.Error:
            continue  # somebody else's, or gone
    return users


if __name__ == "__main__":
    clean_up(Path(os.environ[_VARIABLE]))
