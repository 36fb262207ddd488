"""Makes sure that the processes a script starts end with the script, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` for a child of this process: the kernel sends the child the signal when this process dies.

    It works on Linux only. On other systems the children of a killed script keep running.
    """
    parent = os.getpid()

    def in_the_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signum)
            if os.getppid() != parent:  # the parent died before the kernel was told
                os._exit(128 + signum)

    return in_the_child


class Afterwards:
    """A shell command that runs when this process has ended, even by kill -9, or when `now` is called.

    Another process waits until a pipe closes to which only this process can write.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._waiting = subprocess.Popen(
            ["sh", "-c", f"cat >/dev/null; {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # so a Ctrl-C does not reach it
        )

    def now(self) -> None:
        """Run the command and wait until it has ended."""
        self._waiting.communicate()
