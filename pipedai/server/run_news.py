"""Tells streams which runs have new events, all runs together, so that not every call sends a notification."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from threading import Lock
from uuid import UUID

from pipedai.logs import get_logger
from pipedai.server.listen import Listener
from pipedai.wakeups import announce_runs_with_events, gather_runs_with_events

log = get_logger(__name__)

# The runs that got events within this time are told together.
GATHER_SECONDS = 0.1

# Runs a function in one of the threads that serve requests.
InThread = Callable[[Callable[[], None]], Awaitable[None]]


class RunNews:
    """Collects runs for GATHER_SECONDS, then wakes this process's streams directly, and those of others by one
    notification. Streams look again after `event_stream.RECHECK_SECONDS`, in case the process dies before.
    """

    def __init__(self, listener: Listener, in_thread: InThread) -> None:
        self._listener = listener
        self._in_thread = in_thread
        self._lock = Lock()
        self._runs: set[UUID] = set()
        # The event loop and its event `self._come`, which says that there are such runs. The loop is None while `run`
        # does not run.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._come = asyncio.Event()

    async def run(self) -> None:
        """Take over the announcements of this process until cancelled, and tell what is left then."""
        self._loop = asyncio.get_running_loop()
        gather_runs_with_events(self.add)
        try:
            while True:
                await self._come.wait()
                await asyncio.sleep(GATHER_SECONDS)
                await self._tell()
        finally:
            gather_runs_with_events(None)
            with self._lock:
                self._loop = None
            await self._tell()

    def add(self, run_id: UUID) -> bool:
        with self._lock:
            if self._loop is None:
                return False
            if not self._runs:
                self._loop.call_soon_threadsafe(self._come.set)
            self._runs.add(run_id)
        return True

    async def _tell(self) -> None:
        with self._lock:
            runs, self._runs = self._runs, set()
            self._come.clear()
        if not runs:
            return
        self._listener.hear_events(map(str, runs))
        try:
            await self._in_thread(partial(_announce, runs, self._listener.name))
        except Exception as error:
            log.warning("wakeup.lost", error=type(error).__name__)


def _announce(runs: Iterable[UUID], name: str) -> None:
    announce_runs_with_events(runs, told_by=name)
