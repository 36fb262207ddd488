"""The lane of ordinary requests: a WSGI application on a bounded pool of threads."""

import asyncio
from typing import Any

from a2wsgi import WSGIMiddleware

from pipedai.server.asgi_types import Message, Receive, Scope, Send


class WsgiLane:
    """Runs each request in one of `threads` threads, to its end whatever its client does.

    a2wsgi's thread waits until each piece of its answer is taken. So pieces are taken at once and
    wait here for the client: one that reads slowly, leaves or breaks must not hold up a thread.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self.threads = threads
        self._bridge: Any = WSGIMiddleware(wsgi, workers=threads)
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many requests are in a thread or wait for one."""
        return len(self._running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces: asyncio.Queue[Message | None] = asyncio.Queue()
        task = asyncio.create_task(self._bridge(scope, receive, pieces.put))
        # The loop itself keeps only a weak reference to a task.
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        while (piece := await pieces.get()) is not None:
            await send(piece)
        await task
