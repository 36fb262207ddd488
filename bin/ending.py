"""Makes sure that the processes that a script starts end with it, even if the script is killed. `python -m bin.ending`
removes the temporary data directory that PIPEDAI_DATA_DIR names, and ends its database server and all that use it.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from pipedai.embedded.server import EmbeddedPostgres

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` for `subprocess`: Linux sends the child this signal when this process ends. On other
    systems the children of a killed script keep running.
    """
    parent = os.getpid()

    def in_the_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signum)
            # The parent has died before the kernel was told to send the signal, so the child ends itself.
            if os.getppid() != parent:
                os._exit(128 + signum)

    return in_the_child


class Afterwards:
    """A shell command that runs when this process ends, even by SIGKILL, or when `now()` is called. A waiting shell
    runs it when a pipe ends that only this process holds open.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._waiting = subprocess.Popen(
            ["sh", "-c", f"cat >/dev/null; {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            # The waiting shell is in a session of its own, so that a Ctrl-C in the terminal does not end it.
            start_new_session=True,
        )

    def now(self) -> None:
        self._waiting.communicate()


_VARIABLE = "PIPEDAI_DATA_DIR"
_PATIENCE_SECONDS = 5


def clean_up(data_dir: Path) -> None:
    """Remove the directory and end all processes that use it. The caller and its ancestors must not be among them."""
    while users := _users_of(data_dir):
        # The processes get only a few seconds, as some would start the database server again for last statements.
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
