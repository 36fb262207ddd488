"""The web process's metrics: its gauges, and the endpoint that answers scrapes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from django.utils.module_loading import autodiscover_modules
from prometheus_client import Gauge

from pipedai.api.error_codes import ErrorCode
from pipedai.metrics import connections, database_state  # noqa: F401 - they register what they read
from pipedai.metrics.build import tell_version
from pipedai.metrics.clock import clock_gauge, skew_of_this_process
from pipedai.metrics.database import DatabaseCollector
from pipedai.metrics.exposition import (
    CHALLENGE,
    PATH,
    UNAUTHORIZED,
    exposition,
    is_authorized,
    registry,
)
from pipedai.metrics.requests import observe_request
from pipedai.server import access_log
from pipedai.server.access_log import LOG
from pipedai.server.asgi_types import App, Receive, Scope, Send
from pipedai.server.error_answer import error_answer
from pipedai.server.headers import RawHeaders
from pipedai.server.listen import Listener
from pipedai.server.memory_budget import MemoryBudget
from pipedai.server.request_scope import header
from pipedai.server.wsgi_lane import WsgiLane

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
_SKEW = clock_gauge()
_LISTENING = _gauge("pipedai_web_listening", "Whether the database's notifications are heard.")


def measured(
    app: App, *, threads: WsgiLane, listener: Listener, budget: MemoryBudget, token: str
) -> App:
    """Returns the application wrapped in code that measures it and answers scrapes. Call it once in a process."""
    autodiscover_modules("metrics")
    # The import stands here, because `outgoing` loads models, and this file is loaded before the models.
    from pipedai.metrics import outgoing

    outgoing.start_at_zero()
    tell_version()
    access_log.observers.append(observe_request)
    return Endpoint(Sampled(app, threads, listener, budget), token)


class Sampled:
    """Sets the process's gauges every second while the process lives, so that requests spend no time on them."""

    def __init__(
        self, app: App, threads: WsgiLane, listener: Listener, budget: MemoryBudget
    ) -> None:
        self._app = app
        self._budget = budget
        self._threads = threads
        self._listener = listener

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
            _SKEW.set(skew_of_this_process())
            await asyncio.sleep(_SAMPLE_SECONDS)


class Endpoint:
    """Answers `GET /metrics` to clients that have the token, and passes all other requests to the application.

    Scrapes have a thread of their own, so that they are answered even while all other threads are busy.
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
        if not is_authorized(sent, self._token):
            code = ErrorCode.INVALID_TOKEN if sent else ErrorCode.UNAUTHENTICATED
            headers, body = error_answer(UNAUTHORIZED, code=code)
            return 401, [*headers, (b"www-authenticate", CHALLENGE.encode())], body
        if scope["method"] not in {"GET", "HEAD"}:
            headers, body = error_answer(
                "Metrics are read with GET.", code=ErrorCode.METHOD_NOT_ALLOWED
            )
            return 405, [*headers, (b"allow", b"GET, HEAD")], body
        accept = header(scope["headers"], b"accept") or ""
        content_type, body = await asyncio.get_running_loop().run_in_executor(
            self._thread, exposition, self._registry, accept
        )
        return (
            200,
            [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")],
            body,
        )
