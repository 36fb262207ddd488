"""Makes gunicorn's ASGI worker use our connections and stop promptly.

gunicorn has no hooks for this. So the class below overrides private methods of gunicorn 27.0, and
`tests/test_worker.py` fails when gunicorn changes them.
"""

# mypy: disallow-untyped-calls=False

import asyncio
import ctypes
import gc
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers import gasgi

from pipedai.server.lanes import STOP
from pipedai.server.protocol import Protocol
from pipedai.server.unchunking import Unchunking

# How long a stopping worker waits for a request that has arrived in part, or that a new connection is about to send.
STOP_HEADER_SECONDS = 0.5
OPEN_FILES = 65_536
LARGE_BLOCK_BYTES = 256 * 1024
KEPT_FREE_BYTES = 16 * 1024 * 1024
# Names of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _allow_many_connections() -> None:
    """Raise the limit of open files, which is often 1,024, because each waiting poll takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _give_large_blocks_back() -> None:
    """Have the C library return each large block to the system when it is freed.

    The library raises its bound with the first large block, and from then on keeps such blocks for each thread: a few
    answers of megabytes at once left hundreds of megabytes with the process. A bound that is set by hand also stops the
    library from raising the free bytes that it keeps for small blocks, so these are set as well: with too few of them
    each request takes memory from the system and gives it back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


class Worker(gasgi.ASGIWorker):
    """One web process."""

    loop: asyncio.AbstractEventLoop
    unchunking: Unchunking

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Protocol] = set()

    def init_process(self) -> None:
        _allow_many_connections()
        _give_large_blocks_back()
        # The worker makes its connections from this name.
        gasgi.ASGIProtocol = Protocol  # type: ignore[attr-defined]
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # What has been loaded stays until the end: collections need not walk it again and again, each time for
        # tens of milliseconds in which nobody is answered. See docs/decisions/fast-paths.md.
        gc.collect()
        gc.freeze()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        self.unchunking = Unchunking(self.loop)
        # gunicorn would leave asyncio's backlog of 100, too few when all workers of a site reconnect at once.
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
        """Make the application answer the polls and streams that are only waiting."""
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
