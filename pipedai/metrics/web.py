"""The web process's metrics: its gauges, and the endpoint that answers scrapes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Gauge, Histogram

from pipedai.metrics.database import DatabaseCollector
from pipedai.metrics.exposition import (
    CLOCK_SKEW,
    PATH,
    begin,
    exposition,
    refusal,
    registry,
    skew_of_this_process,
)
from pipedai.server import outer
from pipedai.server.lanes import WsgiLane
from pipedai.server.listen import Listener
from pipedai.server.memory_budget import MemoryBudget
from pipedai.server.outer import LOG
from pipedai.server.request_scope import (
    KNOWN_METHODS,
    App,
    RawHeaders,
    Receive,
    Scope,
    Send,
    header,
)

_SAMPLE_SECONDS = 1.0


def _gauge(name: str, documentation: str) -> Gauge:
    # Each process has its own value of the gauge, labelled by its pid. The value of a dead process is dropped.
    return Gauge(name, documentation, multiprocess_mode="liveall")


_THREADS = _gauge("pipedai_web_threads", "Threads that a web process has for requests.")
_BUSY = _gauge("pipedai_web_threads_busy", "Threads of a web process that run a request.")
_QUEUED = _gauge("pipedai_web_requests_queued", "Requests that wait for a thread.")
_POLLS = _gauge("pipedai_web_polls_waiting", "Polls that wait for a run to come due.")
_STREAMS = _gauge("pipedai_web_streams_open", "Event streams that somebody reads.")
_HELD = _gauge(
    "pipedai_web_bytes_held", "Bytes of requests not yet answered and of answers not yet sent."
)
_LISTENING = _gauge("pipedai_web_listening", "Whether the database's notifications are heard.")


def measured(
    app: App, *, threads: WsgiLane, listener: Listener, budget: MemoryBudget, token: str
) -> App:
    """Returns the application wrapped in code that measures it and answers scrapes. Call it once in a process."""
    begin()
    outer.observers.append(observe_request)
    return Endpoint(Sampled(app, threads, listener, budget), token)


@dataclass(frozen=True, slots=True)
class Sampled:
    _app: App
    _threads: WsgiLane
    _listener: Listener
    _budget: MemoryBudget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        sampling = asyncio.create_task(self._sample())
        try:
            await self._app(scope, receive, send)
        finally:
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling

    async def _sample(self) -> None:
        while True:
            running = self._threads.running
            _THREADS.set(self._threads.threads)
            _BUSY.set(min(running, self._threads.threads))
            _QUEUED.set(max(0, running - self._threads.threads))
            _POLLS.set(self._listener.waiting)
            _STREAMS.set(self._listener.streaming)
            _HELD.set(self._budget.used)
            _LISTENING.set(self._listener.healthy)
            CLOCK_SKEW.set(skew_of_this_process())
            await asyncio.sleep(_SAMPLE_SECONDS)


class Endpoint:
    """Answers `GET /metrics` to clients with the token. It has a thread of its own, so it also answers while all
    threads for requests are busy.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token
        self._registry = registry()
        self._registry.register(DatabaseCollector())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        scope[LOG]["route"] = PATH.removeprefix("/")
        status, headers, body = await self._answer(scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> tuple[int, RawHeaders, bytes]:
        sent = header(scope["headers"], b"authorization")
        if refused := refusal(scope["path"], scope["method"], sent, self._token):
            return refused
        accept = header(scope["headers"], b"accept") or ""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, exposition, self._registry, accept)


# The label of all requests without a route. Unknown methods share a label too, so that clients can't make the number of
# labels grow.
UNMATCHED = "unmatched"
OTHER = "other"

REQUEST_SECONDS = Histogram(
    "pipedai_http_request_duration_seconds",
    "Time from a request's headers to the end of its answer, waiting polls included.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35),
)

# The labelled metrics are kept here, because finding one with `labels()` takes longer than counting and timing a
# request.
_known: dict[tuple[str | None, str | None, int], Histogram] = {}


def observe_request(method: str | None, route: str | None, status: int, seconds: float) -> None:
    """Count one answered request. `route` is the URL template that matched, or None."""
    status_class = status // 100
    child = _known.get((method, route, status_class))
    if child is None:
        child = REQUEST_SECONDS.labels(
            method if method in KNOWN_METHODS else OTHER, route or UNMATCHED, f"{status_class}xx"
        )
        if method in KNOWN_METHODS:
            _known[method, route, status_class] = child
    child.observe(seconds)
