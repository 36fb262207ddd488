"""Lets nothing outlive the script that started it, however that script ends."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends the child this signal when its parent dies. Linux only."""

    def ask_the_kernel() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signum)

    return ask_the_kernel


class Afterwards:
    """A shell command that runs once this process has ended, be it by kill -9, or when told to.

    Another process waits for the end of a pipe that only this one can write to.
    """

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._waiting = subprocess.Popen(
            ["sh", "-c", f"cat >/dev/null; {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a Ctrl-C is not for it
        )

    def now(self) -> None:
        """Run it and wait for its end."""
        self._waiting.communicate()
