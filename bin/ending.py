"""Makes sure that the processes that a script starts end with it, even if the script is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

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
