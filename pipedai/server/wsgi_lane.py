"""The lane of ordinary requests: a WSGI application on a bounded pool of threads."""

import asyncio
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from a2wsgi.wsgi import build_environ

from pipedai.server.asgi_types import Receive, Scope, Send
from pipedai.server.headers import RawHeaders
from pipedai.server.memory_budget import HOLDING, Holding, overloaded


class WsgiLane:
    """Runs each request in one of `threads` threads, to its end whatever its client does.

    A request goes to its thread with its whole body and comes back with its whole answer: one hop there and
    one back, where a2wsgi's own bridge takes one for each piece (a fifth of the web process's CPU). So a client
    that reads slowly, leaves or breaks holds up no thread. Answers that must stream are no business of this lane.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self.threads = threads
        # How many requests are in a thread or wait for one.
        self.running = 0
        self._wsgi = wsgi
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        # Not by run_in_executor, which takes back what is cancelled before a thread has it: a request that has
        # come this far is carried out.
        answering: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        holding: Holding = scope[HOLDING]
        holding.keep()
        self.running += 1
        self._pool.submit(copy_context().run, self._work, scope, body, answering, holding)
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
        self, scope: Scope, body: bytes, answering: "asyncio.Future[_Answer]", holding: Holding
    ) -> None:
        """In a thread: answer, and have the loop pass it on."""
        tell = answering.get_loop().call_soon_threadsafe
        try:
            # Whatever it is, its answer would have to be held as well. As yet nothing of it has been done.
            if holding.is_overdrawn():
                raise overloaded(unread=False)
            answer = self._answer(scope, body)
        except BaseException as error:
            tell(self._done, answering, holding, answering.set_exception, error)
        else:
            tell(self._done, answering, holding, answering.set_result, answer)

    def _done(
        self, answering: "asyncio.Future[_Answer]", holding: Holding, settle: Any, outcome: Any
    ) -> None:
        self.running -= 1
        holding.leave()
        if not answering.cancelled():
            settle(outcome)

    def _answer(self, scope: Scope, body: bytes) -> "_Answer":
        answer = _Answer()
        environ: Any = build_environ(scope, io.BytesIO(body))  # type: ignore[arg-type]
        pieces: Iterable[bytes] = self._wsgi(environ, answer.start)
        try:
            answer.body = b"".join(pieces)
        finally:
            getattr(pieces, "close", lambda: None)()
        return answer


@dataclass(slots=True)
class _Answer:
    """What the application answered."""

    status: int = 0
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""

    def start(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
        """WSGI's start_response; a second call replaces the first (PEP 3333)."""
        self.status = int(status[:3])
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
