"""Defines why a run is stopped before its program has ended, the request for that, and threads in the background."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class StopReason(enum.Enum):
    """The reasons for which a run is stopped. The value of each is its text in the log."""

    CANCELED = "canceled"
    TIMED_OUT = "time limit reached"
    LOST = "no longer this worker's run"
    SHUTDOWN = "the worker is stopping"
    TOKEN_REFUSED = "the worker's token was refused"  # noqa: S105
    # For this reason and the three below it, the executor itself stops the program and decides the run's outcome.
    SILENT = "silent for too long"
    NOT_BEGUN = "claude did not begin"
    LINGERING = "finished, but did not end"
    NO_SERVER = "not connected to its MCP server"


# For these reasons the whole worker exits, so the program gets less time between SIGTERM and SIGKILL.
HASTY = frozenset({StopReason.SHUTDOWN, StopReason.TOKEN_REFUSED})


class StopRequest:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reason: StopReason | None = None
        self.hasty = False

    def request(self, reason: StopReason) -> None:
        """Ask for the run to be stopped. A second reason can only shorten the time that the program gets to end."""
        with self._lock:
            self.hasty = self.hasty or reason in HASTY
            if self.reason is None:
                self.reason = reason


# While the system has no room for another thread, it is asked again this often.
ROOM_SECONDS = 0.2


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Run `work` in a new thread, which does not keep the process alive. Raises RuntimeError if the system has no room
    for one, as when a run has started very many processes.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def run_in_background(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a thread as `start_thread` does, but wait until the system has room for it."""
    while True:
        with contextlib.suppress(RuntimeError):
            return start_thread(name, work)
        time.sleep(ROOM_SECONDS)


def in_background(name: str, work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run `work` in a new thread, for which the running event loop does not wait when it ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    # If the loop ends first, nobody reads the future's exception, and asyncio would complain about that.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(result: list[Result], error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result[0])
        else:
            future.set_exception(error)

    def run() -> None:
        result, failed = [], None
        try:
            result.append(work())
        except Exception as error:
            failed = error
        # The event loop may have been closed while `work` ran.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failed)

    try:
        start_thread(name, run)
    except RuntimeError:
        future.set_exception(OSError(errno.EAGAIN, "there is no room for another thread"))
    return future
