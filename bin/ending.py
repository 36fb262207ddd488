"""Lets nothing outlive the script that started it, however that script ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: signal.Signals) -> Callable[[], None]:
    """To be called in a child of this process, as `preexec_fn`: it gets the signal when we die.

    Linux only; elsewhere a killed script leaves its children behind.
    """
    parent = os.getpid()

    def in_the_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signum)
            if os.getppid() != parent:  # it has died already
                os._exit(128 + signum)

    return in_the_child


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
