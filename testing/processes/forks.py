"""Makes calls in forks of this process, which may be killed at any moment.

A fork costs hardly anything, while a new Python with Django takes half a second of CPU to start.
"""

import os
import signal
import time
from collections.abc import Callable

from django.db import connections, transaction


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


def kill_before_commit(call: Callable[[], object]) -> None:
    """Makes the call in a transaction of another process, and kills that process when it is about to commit. The
    database may notice only a moment later, and release the locks then.
    """
    told, tell = os.pipe()

    def call_and_wait() -> None:
        with transaction.atomic():
            call()
            os.write(tell, b"done")
            time.sleep(600)

    pid = forked(call_and_wait)
    os.close(tell)
    try:
        # There is nothing to read if the process ends instead.
        assert os.read(told, 4) == b"done"
    finally:
        kill(pid)
        os.close(told)


def kill(pid: int) -> None:
    """Kills the process (kill -9), and waits until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
