"""The lane of ordinary requests: a WSGI application on a bounded pool of threads."""

import asyncio
from typing import Any

from a2wsgi import WSGIMiddleware

from pipedai.server.asgi_types import Message, Receive, Scope, Send


class WsgiLane:
    """Runs each request in one of `threads` threads, to its end whatever its client does.

    a2wsgi's thread waits for each piece of its answer to be taken. If the coroutine that takes
    them were cancelled, or died of an error, the thread would wait forever.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self._bridge: Any = WSGIMiddleware(wsgi, workers=threads)
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.create_task(self._run(scope, receive, send))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.shield(task)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure: Exception | None = None

        async def take(message: Message) -> None:
            nonlocal failure
            if failure is None:
                try:
                    await send(message)
                except Exception as error:
                    failure = error

        await self._bridge(scope, receive, take)
        if failure is not None:
            raise failure
