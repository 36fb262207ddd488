"""Serves ordinary requests: runs a WSGI application, which is Django, on a bounded pool of threads."""

import asyncio
import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from a2wsgi.wsgi import build_environ

from pipedai.server.asgi_types import Receive, Scope, Send
from pipedai.server.fair_threads import FairThreads
from pipedai.server.headers import RawHeaders
from pipedai.server.memory_budget import HOLDING, Holding, overloaded


class WsgiLane:
    """Runs each request to its end in one of `threads` threads, even if its client leaves.

    The thread gets the whole body and returns the whole answer, so a client that reads slowly or leaves holds up no
    thread. This also saves a fifth of the web process's CPU, because a2wsgi's own bridge changes threads for each piece
    of an answer. This lane can't serve answers that must stream.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self.threads = threads
        # How many requests are in a thread or wait for one.
        self.running = 0
        self._wsgi = wsgi
        # Requests of the same client address form a group, and groups take turns.
        self._pool = FairThreads(threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        # asyncio's run_in_executor is not used, because it would drop a request that is cancelled before a thread
        # starts it. A request that has come this far is always carried out.
        loop = asyncio.get_running_loop()
        answering: asyncio.Future[_Answer] = loop.create_future()
        holding: Holding = scope[HOLDING]
        holding.keep()
        self.running += 1
        done = partial(self._done, answering, holding)
        run = copy_context().run
        self._pool.submit(
            holding.address, partial(run, self._work, scope, body, holding, loop, done)
        )
        answer = await answering
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    def _work(
        self,
        scope: Scope,
        body: bytes,
        holding: Holding,
        loop: asyncio.AbstractEventLoop,
        done: Callable[["_Answer | BaseException"], None],
    ) -> None:
        """Answer the request in a thread, and hand the answer to the event loop."""
        outcome: _Answer | BaseException
        try:
            # If memory is short, the request is refused here, because its answer would need memory as well and nothing
            # was done yet.
            if holding.is_overdrawn():
                raise overloaded(unread=False)
            outcome = self._answer(scope, body)
        except BaseException as error:
            outcome = error
        with suppress(RuntimeError):  # The event loop has ended.
            loop.call_soon_threadsafe(done, outcome)

    def _done(
        self,
        answering: "asyncio.Future[_Answer]",
        holding: Holding,
        outcome: "_Answer | BaseException",
    ) -> None:
        self.running -= 1
        holding.leave()
        if answering.cancelled():
            return
        if isinstance(outcome, BaseException):
            answering.set_exception(outcome)
        else:
            answering.set_result(outcome)

    def _answer(self, scope: Scope, body: bytes) -> "_Answer":
        answer = _Answer()
        # Only this function of a2wsgi is used, because its own bridge costs more CPU. See docs/decisions/fast-paths.md.
        environ: Any = build_environ(scope, io.BytesIO(body))  # type: ignore[arg-type]
        pieces: Iterable[bytes] = self._wsgi(environ, answer.start)
        try:
            answer.body = b"".join(pieces)
        finally:
            getattr(pieces, "close", lambda: None)()
        return answer


@dataclass(slots=True)
class _Answer:
    """The WSGI application's answer, collected in memory."""

    status: int = 0
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""

    def start(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
        """Note the answer's status and headers.

        It is WSGI's start_response, whose second call replaces the first (PEP 3333).
        """
        self.status = int(status[:3])
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
