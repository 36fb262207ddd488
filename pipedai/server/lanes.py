"""Sends each request to its lane, the part of the server that serves its kind, and starts and stops the lanes."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from a2wsgi.wsgi import build_environ
from django.db import close_old_connections

from pipedai.clocks import EDITION
from pipedai.server.event_stream import EventStreams, StreamKind
from pipedai.server.listen import Ear, EventsEar, ThingsEar
from pipedai.server.long_poll import ID, AskingLane, LongPoll, asking_connection
from pipedai.server.memory_budget import HOLDING, Holding, overloaded, whole_answer
from pipedai.server.outer import LOG
from pipedai.server.request_scope import (
    HOOKS,
    App,
    Message,
    RawHeaders,
    Receive,
    Scope,
    Send,
    header,
    network_of,
)
from pipedai.server.ticket import (
    PASSWORD,
    EnvironmentStreamTicket,
    PermitTicket,
    StreamTicket,
    WorkerStreamTicket,
)
from pipedai.server.turns import Turn, Turns
from pipedai.version import VERSION

T = TypeVar("T")


def _is_address(group: Hashable) -> bool:
    return isinstance(group, str)


class WsgiLane:
    """Runs Django for each request in one of `threads` threads. A thread gets the whole body and returns the whole
    answer, so that no slow client holds it. This also saves a fifth of the CPU time of a2wsgi's own bridge.
    """

    def __init__(self, wsgi: Any, *, threads: int) -> None:
        self.threads = threads
        # The number of requests that are being served in a thread or wait for a free thread.
        self.running = 0
        self._wsgi = wsgi
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")
        # The calls of one workspace form a group, as do those of an address whose callers nobody knows yet. Groups take
        # turns, so that no group makes the others wait for long. A group gets three quarters of the threads at most,
        # because all its calls may wait for the same locked row. Addresses get no more together, and half of the
        # threads each, because a tenant may call from many with tokens that the process sees for the first time.
        self._turns = Turns(threads, most_held=threads - threads // 4, are_one=_is_address)

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
        start = {"status": answer.status, "headers": answer.headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": answer.body})

    async def run(self, group: Hashable, function: Callable[[], T]) -> T:
        """Run a function in a thread with a database connection. `group` takes turns with the groups of requests. An
        error of the function is raised here.
        """
        loop = asyncio.get_running_loop()
        running: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            # A connection that has ended or is too old is given up here, as Django does before and after each request.
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
    """Hand an outcome to the coroutine that waits for it, unless the coroutine was cancelled."""
    if waiting.cancelled():
        return
    if isinstance(outcome, BaseException):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


# It has no `repr`, because both the body and a cookie may hold a token.
@dataclass(slots=True, repr=False)
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


class HookLane:
    """Serves the hooks, to which strangers may send, in half of the threads at most. So a flood of events from many
    addresses leaves the other half of the threads to other requests. A request that waits for its turn holds no thread.
    """

    def __init__(self, threads: App, *, turns: int) -> None:
        self._threads = threads
        # One group leaves a quarter of the turns to others, because all its requests may wait for the same locked row.
        self._turns = Turns(turns, most_held=turns - turns // 4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(HOOKS):
            await self._threads(scope, receive, send)
            return
        holding: Holding = scope[HOLDING]
        async with self._turns.turn(holding.group):
            await self._threads(scope, receive, send)


PERMIT_PATIENCE_SECONDS = 5.0
# How many requests may wait for one kind of permit. Each keeps a connection and its body in memory, and no machine
# works off a longer queue within PERMIT_PATIENCE_SECONDS, so further requests are refused at once.
_MOST_WAITING = 500
# How many requests of one client address may wait for one kind of permit. The number exceeds the logins that one
# address may try within a minute.
_MOST_OF_AN_ADDRESS = 100

# The paths whose POST or DELETE may hash a password. accounts/tests/test_password_routes.py fails if one is missing.
# See docs/decisions/fast-paths.md.
_PASSWORD_PATHS = frozenset(
    {
        "/api/v1/auth/login",
        "/api/v1/auth/register",
        "/api/v1/auth/change-password",
        "/api/v1/auth/change-email",
        "/api/v1/auth/reset-password",
        "/api/v1/auth/me",
        "/api/v1/auth/me/single-sign-on",
        "/api/v1/auth/sso/link",
        "/console/sign-in",
        "/console/register",
        "/console/sso/link",
        "/console/account/delete",
        "/console/account/unlink",
        "/console/account/password",
        "/console/account/email",
        "/console/account/invitation",
        "/console/account/reset",
        "/console/account/register",
        "/admin/login/",
        "/admin/account/",
    }
)


# The paths of requests that may have to ask the issuer who signs in.
_ISSUER_PATHS = frozenset(
    {
        "/api/v1/auth/sso/begin",
        "/api/v1/auth/sso/finish",
        "/console/sso",
        "/console/sso/callback",
    }
)


def may_hash(scope: Scope) -> bool:
    """Whether this request may have to hash a password. The endpoint decides whether there is a password to hash."""
    return scope["path"] in _PASSWORD_PATHS and scope["method"] in {"POST", "DELETE"}


def permit_turns(permits: int) -> Turns:
    """Return the Turns of a PermitLane, where client addresses take turns."""
    return Turns(permits, most_waiting=_MOST_WAITING, most_of_a_group=_MOST_OF_AN_ADDRESS)


class PermitLane:
    """Asks the endpoint once. If it answers 503 because it needs a permit, to hash a password or to ask the issuer,
    asks it again with the permit. So credentials, throttles and validation are checked before the wait for the permit,
    and every answer is the endpoint's own. A request that gets no permit in time is answered with that 503.
    """

    def __init__(
        self,
        endpoint: App,
        turns: Turns,
        *,
        ticket: ContextVar[PermitTicket | None] = PASSWORD,
        patience: float = PERMIT_PATIENCE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._turns = turns
        self._ticket = ticket
        self._patience = patience

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        ticket = PermitTicket()
        token = self._ticket.set(ticket)
        try:
            answer = await whole_answer(self._endpoint, scope, body)
            if ticket.wanted:
                answer = await self._ask_in_turn(ticket, scope, body, receive) or answer
        finally:
            self._ticket.reset(token)
        for message in answer:
            await send(message)

    async def _ask_in_turn(
        self, ticket: PermitTicket, scope: Scope, body: bytes, receive: Receive
    ) -> list[Message] | None:
        """Return the endpoint's second answer, for which it has the permit, or None if no permit came in time."""
        ear = Ear()
        address = network_of(scope["client"][0])
        turn = self._turns.ask(address, 1, wake=lambda _: ear.wake())
        with ExitStack() as at_the_end:
            at_the_end.callback(self._turns.leave, turn)
            if not await self._comes(turn, ear, receive):
                return None
            ticket.granted = True
            asking = asyncio.ensure_future(whole_answer(self._endpoint, scope, body))
            # If the client leaves, this call is cancelled, but the thread goes on. The permit is given back only when
            # the thread is done, because its work takes memory and the thread until then.
            held = at_the_end.pop_all()
            asking.add_done_callback(lambda _: held.close())
        return await asyncio.shield(asking)

    async def _comes(self, turn: Turn, ear: Ear, receive: Receive) -> bool:
        """Wait for the permit of the turn. Return whether it came in time. Raises ClientGone if the client left."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while not (turn.granted or turn.refused) and (left := until - clock()) > 0:
            await ear.wait(receive, left)
        if turn.granted:
            await ear.wait(receive, 0)
        return turn.granted


# The key, in ASGI's lifespan state, of a function of the application. The server calls it when it begins to stop.
STOP = "pipedai.stop"

LIVE = "/api/v1/health/live"

# The regular expressions below find polls and event streams without Django, so they must agree with the paths in the
# `@Operation` of their actions. See docs/decisions/fast-paths.md.
_POLL = re.compile(f"/api/v1/workers/{ID}/poll")
_CLAIM_NEXT = re.compile(f"/api/v1/workers/{ID}/claim-next")
STREAMS = (
    StreamKind(
        "worker events",
        re.compile(f"/api/v1/workers/{ID}/events/stream"),
        WorkerStreamTicket,
    ),
    StreamKind(
        "run events",
        re.compile(f"/api/v1/runs/{ID}/events/stream"),
        StreamTicket,
        EventsEar,
        pause_seconds=0.25,
    ),
    StreamKind(
        "environment events",
        re.compile(f"/api/v1/environments/{ID}/events/stream"),
        EnvironmentStreamTicket,
        ThingsEar,
        pause_seconds=0.5,
    ),
)

_LIVE_BODY = f'{{"status":"ok","version":"{VERSION}","tzdata":"{EDITION}"}}'.encode()
_LIVE_HEADERS = [
    (b"content-type", b"application/json"),
    (b"allow", b"GET, HEAD"),
    (b"vary", b"origin"),
]


@dataclass(frozen=True, slots=True)
class Lanes:
    """Sends waiting polls, event streams, and requests that may hash a password, ask the issuer or wait for a tenant's
    server to their lanes, and all others to `threads`. `background` makes coroutines that run until the server stops.
    """

    _threads: App
    _long_poll: LongPoll
    _streams: EventStreams
    _passwords: PermitLane
    _sign_ins: PermitLane
    _asking: AskingLane
    _background: Sequence[Callable[[], Coroutine[Any, Any, None]]]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        if (worker_id := waiting_worker(scope)) is not None:
            return self._long_poll.serve(worker_id, scope, receive, send)
        if (stream := streamed(scope)) is not None:
            return self._streams.serve(*stream, scope, receive, send)
        if may_hash(scope):
            return self._passwords.serve(scope, receive, send)
        if scope["path"] in _ISSUER_PATHS:
            return self._sign_ins.serve(scope, receive, send)
        if (connection_id := asking_connection(scope)) is not None:
            return self._asking.serve(connection_id, scope, receive, send)
        # The answer to a request with an `Origin` needs CORS headers from Django. Health checks send no `Origin`.
        is_read = scope["method"] in {"GET", "HEAD"}
        if scope["path"] == LIVE and is_read and header(scope["headers"], b"origin") is None:
            return _say_alive(scope, send)
        return self._threads(scope, receive, send)

    def _stop(self) -> None:
        self._long_poll.stop()
        self._streams.stop()
        self._asking.stop()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the coroutines of `background` from the server's start to its end, by ASGI's lifespan protocol."""
        await receive()
        scope.get("state", {})[STOP] = self._stop
        tasks = [asyncio.create_task(run()) for run in self._background]
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            self._stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})


async def _say_alive(scope: Scope, send: Send) -> None:
    """Answers in the event loop, so that no free thread is needed (docs/decisions/fast-paths.md)."""
    # Django gives the access log the routes of other calls, but does not see this one.
    scope[LOG]["route"] = LIVE.removeprefix("/")
    await send({"type": "http.response.start", "status": 200, "headers": _LIVE_HEADERS})
    await send({"type": "http.response.body", "body": _LIVE_BODY})


def waiting_worker(scope: Scope) -> UUID | None:
    """Return the id of the worker if this request asks for runs and may wait, else None. A poll may wait unless its
    `wait` is 0; the endpoint refuses bad values. A claim of the next run says in its body whether it waits.
    """
    if scope["method"] == "POST" and (match := _CLAIM_NEXT.fullmatch(scope["path"])):
        return UUID(match[1])
    if scope["method"] != "GET":
        return None
    match = _POLL.fullmatch(scope["path"])
    if match is None:
        return None
    wait = parse_qs(scope["query_string"].decode("ascii")).get("wait", ["0"])[-1]
    return None if wait == "0" else UUID(match[1])


def streamed(scope: Scope) -> tuple[StreamKind, UUID] | None:
    """Return the kind and the subject's id of the event stream that a request asks for, or None."""
    if scope["method"] == "GET" and scope["path"].endswith("/events/stream"):
        for kind in STREAMS:
            if match := kind.path.fullmatch(scope["path"]):
                return kind, UUID(match[1])
    return None
