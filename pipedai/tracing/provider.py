"""Makes spans and sends them over OTLP, as OpenTelemetry's standard environment variables tell."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipedai.events import Event, on_committed
from pipedai.ids import current_request_id
from pipedai.loop import Job
from pipedai.server.outer import LOG
from pipedai.server.request_scope import KNOWN_METHODS, App, Message, Receive, Scope, Send, header
from pipedai.tracing import Attributes

_NAME = "pipedai"
# The final flush takes at most this long, so that a process can stop even if the collector is away.
_FLUSH_MILLISECONDS = 2000

_provider: TracerProvider | None = None


def set_up(service: str) -> None:
    """Start to make and send spans. Call it once in a process, after it has forked."""
    global _provider
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
    _provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    on_committed(_add_event)


def tracer() -> Tracer:
    assert _provider is not None
    return _provider.get_tracer(_NAME)


def flush() -> None:
    if _provider is not None:
        _provider.force_flush(_FLUSH_MILLISECONDS)


@contextmanager
def open_span(
    name: str, attributes: Attributes, *, kind: SpanKind = SpanKind.CLIENT, parent: Any = None
) -> Iterator[trace.Span]:
    """Opens a span, which is for a call to another service unless `kind` says otherwise. If an error ends it, only the
    error's type is recorded, because its text may be private.
    """
    span = tracer().start_span(name, context=parent, kind=kind, attributes=dict(attributes))
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except Exception as error:
            fail(span, type(error).__name__)
            raise
        finally:
            if span.is_recording():
                span.end()


def fail(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


def _add_event(event: Event) -> None:
    """Add a committed domain event to the present span, with its ids but without its metadata."""
    named = {
        "pipedai.environment.id": event.environment_id,
        f"pipedai.{event.target_type}.id": event.target_id,
    }
    trace.get_current_span().add_event(
        event.action, {name: str(id_) for name, id_ in named.items() if id_}
    )


def traced(jobs: Iterable[Job]) -> tuple[Job, ...]:
    return tuple(replace(job, work=_traced(job)) for job in jobs)


def _traced(job: Job) -> Callable[[], int]:
    def work() -> int:
        span = tracer().start_span(f"job {job.name}", kind=SpanKind.INTERNAL)
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                units = job.work()
            except Exception as error:
                fail(span, type(error).__name__)
                span.end()
                raise
        # Most batches find nothing to do. Their spans are never ended, and a span that is not ended is not sent.
        if units:
            span.set_attribute("pipedai.job.units", units)
            span.end()
        return units

    return work


# The name of all unknown HTTP methods in traces, which OpenTelemetry's conventions prescribe.
_OTHER = "_OTHER"
_PARENT = ("traceparent", "tracestate")


class TracedRequests:
    """Traces an application's requests. `traceparent` names the parent of a request's span."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._trace(scope, receive, send)
            return
        await self._app(scope, receive, send)
        await asyncio.to_thread(flush)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in KNOWN_METHODS else _OTHER
        attributes = {
            "http.request.method": method,
            "pipedai.request.id": current_request_id.get(),
        }
        sent = {name: header(scope["headers"], name.encode()) for name in _PARENT}
        parent = self._propagator.extract({name: value for name, value in sent.items() if value})
        with open_span(method, attributes, kind=SpanKind.SERVER, parent=parent) as span:
            said = scope[LOG]
            said["trace_id"] = f"{span.get_span_context().trace_id:032x}"

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        fail(span, str(status))
                    if route := said.get("route"):
                        span.update_name(f"{method} {route}")
                        span.set_attribute("http.route", route)
                await send(message)

            await self._app(scope, receive, tell)
