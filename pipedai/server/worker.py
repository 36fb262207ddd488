"""Makes gunicorn's ASGI worker use our connections and stop promptly.

`Worker` overrides private methods of gunicorn 27.0; `tests/test_worker.py` fails when they change.
"""

# mypy: disallow-untyped-calls=False

import asyncio
import ctypes
import gc
import resource
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers import gasgi

from pipedai.server.lanes import STOP
from pipedai.server.protocol import Protocol

# A process that stops waits this many seconds for requests whose headers have arrived only in part, and for the first
# request on each new connection.
STOP_HEADER_SECONDS = 0.5
# The parser works for at most this many seconds at a time. Afterwards the event loop gets at least as much time for
# everything else.
TURN_SECONDS = 0.002
OPEN_FILES = 65_536
LARGE_BLOCK_BYTES = 256 * 1024
KEPT_FREE_BYTES = 16 * 1024 * 1024
# The numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _allow_many_connections() -> None:
    """Raise the limit of open files, often 1,024: each connection, and so each waiting poll, takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _give_large_blocks_back() -> None:
    """Make the C library return large blocks to the system when they are freed. By default it kept hundreds of
    megabytes. As it then no longer adapts how much it keeps for small blocks, that is set too.
    """
    # Only the C library glibc has the function mallopt.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


class Unchunking:
    """Parses chunked bodies in small pieces, connection after connection, because 16 KiB of one-byte chunks keep the
    event loop busy for 5 ms.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], bool]] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, parse_some: Callable[[], bool]) -> None:
        """Call a connection's `parse_some` until it has nothing left to parse. Don't add a connection twice."""
        self._waiting.append(parse_some)
        if self._next is None:
            self._next = self._loop.call_soon(self._work)

    def _work(self) -> None:
        began, spent = self._loop.time(), 0.0
        try:
            while self._waiting and spent < TURN_SECONDS:
                parse_some = self._waiting.popleft()
                if parse_some():
                    self._waiting.append(parse_some)
                spent = self._loop.time() - began
        finally:
            again = bool(self._waiting)
            self._next = self._loop.call_later(spent, self._work) if again else None


class Worker(gasgi.ASGIWorker):
    """One web process: gunicorn's ASGI worker, which here makes connections with our class Protocol."""

    loop: asyncio.AbstractEventLoop
    unchunking: Unchunking

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Protocol] = set()

    def init_process(self) -> None:
        _allow_many_connections()
        _give_large_blocks_back()
        # gunicorn's worker makes its connections with the class of this name, so the name is given to our class.
        gasgi.ASGIProtocol = Protocol  # type: ignore[attr-defined]
        super().init_process()

    def load_wsgi(self) -> None:
        # The collection of garbage is off during imports, because imports make no garbage, and the search for it takes
        # a seventh of the start's CPU time.
        gc.disable()
        super().load_wsgi()
        gc.enable()
        # Objects loaded so far stay until the process ends. Freezing them keeps garbage collections from walking over
        # them again and again, during which no request is served for tens of milliseconds.
        # See docs/decisions/fast-paths.md.
        gc.collect()
        gc.freeze()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        self.unchunking = Unchunking(self.loop)
        # gunicorn would leave asyncio's default of 100 connections that wait to be accepted, which is too few when all
        # workers of a site reconnect at once.
        create_server = partial(self.loop.create_server, backlog=self.cfg.backlog)
        self.loop.create_server = create_server  # type: ignore[method-assign]

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self._stop_waiting()

    async def _shutdown(self) -> None:
        self._stop_waiting()
        closing = self.loop.create_task(self._close_waiting())
        try:
            await super()._shutdown()
        finally:
            closing.cancel()

    def _stop_waiting(self) -> None:
        stop: Callable[[], None] | None = self.state.get(STOP)
        if stop is not None:
            stop()

    async def _close_waiting(self) -> None:
        """Close connections on which no request is being served, until all connections are closed."""
        patience = self.loop.time() + STOP_HEADER_SECONDS
        while True:
            for connection in list(self.connections):
                if connection.is_waiting() and (
                    connection.is_idle() or self.loop.time() > patience
                ):
                    connection.close_waiting()
            await asyncio.sleep(0.05)
