"""Sends each request to the part of the server that serves its kind (its lane), and starts and stops these parts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from pipedai.server.access_log import LOG
from pipedai.server.asking_lane import AskingLane, asking_connection
from pipedai.server.ears import EventsEar, ThingsEar
from pipedai.server.event_stream import EventStreams, StreamKind
from pipedai.server.long_poll import LongPoll
from pipedai.server.password_lane import PasswordLane, may_hash
from pipedai.server.request_scope import App, Receive, Scope, Send, header
from pipedai.server.ticket import EnvironmentStreamTicket, StreamTicket, WorkerStreamTicket
from pipedai.timezones import EDITION
from pipedai.version import VERSION

# The key, in ASGI's lifespan state, of a function of the application. The server calls it when it begins to stop.
STOP = "pipedai.stop"

LIVE = "/api/v1/health/live"

# The regular expressions below find polls and event streams without Django, so they must match what the `@Operation` of
# their actions say. See docs/decisions/fast-paths.md.
_ID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_POLL = re.compile(f"/api/v1/workers/{_ID}/poll")
_CLAIM_NEXT = re.compile(f"/api/v1/workers/{_ID}/claim-next")
STREAMS = (
    StreamKind(
        "worker events",
        re.compile(f"/api/v1/workers/{_ID}/events/stream"),
        WorkerStreamTicket,
    ),
    StreamKind(
        "run events",
        re.compile(f"/api/v1/runs/{_ID}/events/stream"),
        StreamTicket,
        EventsEar,
        pause_seconds=0.25,
    ),
    StreamKind(
        "environment events",
        re.compile(f"/api/v1/environments/{_ID}/events/stream"),
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


class Lanes:
    """Sends waiting polls, event streams, and requests that may hash a password or wait for a tenant's server to their
    lanes, and all others to `threads`. `background` makes coroutines that run until the server stops.
    """

    def __init__(
        self,
        threads: App,
        long_poll: LongPoll,
        streams: EventStreams,
        passwords: PasswordLane,
        asking: AskingLane,
        background: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    ) -> None:
        self._threads = threads
        self._long_poll = long_poll
        self._streams = streams
        self._passwords = passwords
        self._asking = asking
        self._background = background

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        if (worker_id := waiting_worker(scope)) is not None:
            return self._long_poll.serve(worker_id, scope, receive, send)
        if (stream := streamed(scope)) is not None:
            return self._streams.serve(*stream, scope, receive, send)
        if may_hash(scope):
            return self._passwords.serve(scope, receive, send)
        if (connection_id := asking_connection(scope)) is not None:
            return self._asking.serve(connection_id, scope, receive, send)
        if scope["path"] == LIVE and _is_asked_by_a_probe(scope):
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


def _is_asked_by_a_probe(scope: Scope) -> bool:
    """Health checks send no `Origin`; an answer to a request with one needs CORS headers."""
    return scope["method"] in {"GET", "HEAD"} and header(scope["headers"], b"origin") is None


async def _say_alive(scope: Scope, send: Send) -> None:
    """Answers in the event loop, so that no free thread is needed (docs/decisions/fast-paths.md)."""
    # Django usually tells the access log the route. It does not see this call.
    scope[LOG]["route"] = LIVE.removeprefix("/")
    await send({"type": "http.response.start", "status": 200, "headers": _LIVE_HEADERS})
    await send({"type": "http.response.body", "body": _LIVE_BODY})


def waiting_worker(scope: Scope) -> UUID | None:
    """Return the id of the worker who asks for runs by this request and may wait, else None. Any `wait` but 0 counts,
    because the endpoint refuses bad values. A claim of the next run says in its body whether it waits.
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
