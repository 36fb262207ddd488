"""Serves ordinary requests: it runs Django, as a WSGI application, in a limited number of threads."""

import asyncio
import io
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from a2wsgi.wsgi import build_environ
from django.db import close_old_connections

from pipedai.server.headers import RawHeaders
from pipedai.server.memory_budget import HOLDING, Holding, overloaded
from pipedai.server.request_scope import Receive, Scope, Send
from pipedai.server.turns import Turn, Turns

T = TypeVar("T")


class WsgiLane:
    """Runs Django for each request to its end in one of `threads` threads. A thread gets the whole body and returns the
    whole answer, so that no slow client holds it. This also saves a fifth of the CPU time of a2wsgi's own bridge.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self.threads = threads
        # The number of requests that are being served in a thread or wait for a free thread.
        self.running = 0
        self._wsgi = wsgi
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        # The calls of one client address form a group, as do the events of one workspace (`senders.py`). Groups take
        # turns, so that none makes the others wait for long. One gets three quarters of the threads at most, because
        # all its calls may wait for the same locked row.
        self._turns = Turns(threads, most_held=threads - threads // 4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        # asyncio's run_in_executor is not used, because it drops a call that is cancelled before a thread has started
        # it. Here a request is always carried out once it is queued for a thread.
        loop = asyncio.get_running_loop()
        answering: asyncio.Future[_Answer] = loop.create_future()
        holding: Holding = scope[HOLDING]
        holding.keep()
        self.running += 1
        done = partial(self._done, answering, holding)
        run = copy_context().run
        self._submit(holding.group, partial(run, self._work, scope, body, holding, loop, done))
        answer = await answering
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": answer.headers,
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def run(self, group: Hashable, function: Callable[[], T]) -> T:
        """Run a function in a thread with a database connection. `group` takes turns with those
        of the requests. Raises what it raises.
        """
        loop = asyncio.get_running_loop()
        running: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            # As before and after each request, an ended or old connection is given up.
            close_old_connections()
            outcome: T | BaseException
            try:
                outcome = function()
            except BaseException as error:
                outcome = error
            close_old_connections()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, running, outcome)

        self._submit(group, work)
        return await running

    def _submit(self, group: Hashable, call: Callable[[], None]) -> None:
        """Make a call in a thread when it is the group's turn. The call must not raise."""
        self._turns.ask(group, 1, wake=lambda turn: self._pool.submit(self._make, call, turn))

    def _make(self, call: Callable[[], None], turn: Turn) -> None:
        call()
        self._turns.leave(turn)

    def _work(
        self,
        scope: Scope,
        body: bytes,
        holding: Holding,
        loop: asyncio.AbstractEventLoop,
        done: Callable[["_Answer | BaseException"], None],
    ) -> None:
        outcome: _Answer | BaseException
        try:
            # The request is refused here if the process is short of memory, because the answer would need memory as
            # well. Nothing has been done for the request yet.
            if holding.is_overdrawn():
                raise overloaded(unread=False)
            outcome = self._answer(scope, body)
        except BaseException as error:
            outcome = error
        # This error means that the event loop has ended, so that nothing waits for the answer.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(done, outcome)

    def _done(
        self,
        answering: "asyncio.Future[_Answer]",
        holding: Holding,
        outcome: "_Answer | BaseException",
    ) -> None:
        self.running -= 1
        holding.leave()
        _settle(answering, outcome)

    def _answer(self, scope: Scope, body: bytes) -> "_Answer":
        answer = _Answer()
        # Only this function of a2wsgi is used, because a2wsgi's complete bridge between ASGI and WSGI costs more CPU.
        # See docs/decisions/fast-paths.md.
        environ: Any = build_environ(scope, io.BytesIO(body))  # type: ignore[arg-type]
        pieces: Iterable[bytes] = self._wsgi(environ, answer.start)
        try:
            answer.body = b"".join(pieces)
        finally:
            getattr(pieces, "close", lambda: None)()
        return answer


def _settle(waiting: "asyncio.Future[T]", outcome: T | BaseException) -> None:
    """Hand an outcome to whoever waits for it, if anybody still does."""
    if waiting.cancelled():
        return
    if isinstance(outcome, BaseException):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


@dataclass(slots=True)
class _Answer:
    status: int = 0
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""

    def start(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
        """WSGI's `start_response`. A second call replaces the first (PEP 3333)."""
        self.status = int(status[:3])
        self.headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
