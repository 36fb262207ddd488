"""Makes calls in forks of this process, which may be killed at any moment.

A fork costs hardly anything, while a new Python with Django takes half a second of CPU to start.
"""

import os
import signal
from collections.abc import Callable

from django.db import connections


def forked(call: Callable[[], object]) -> int:
    """Starts a process that makes the call, and returns its pid. `kill` must end it. Connections of this process are
    closed, because a fork can't share them.
    """
    connections.close_all()
    pid = os.fork()
    if pid:
        return pid
    try:
        call()
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    """Kills the process (kill -9), and waits until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
