"""Makes spans and sends them over OTLP, as OpenTelemetry's standard environment variables tell."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import transaction
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from pipedai.events import Event, happened
from pipedai.tracing import Attributes, Span

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
    happened.connect(_await_commit, dispatch_uid="pipedai.tracing")


def tracer() -> Tracer:
    """Return the tracer that makes all spans."""
    assert _provider is not None
    return _provider.get_tracer(_NAME)


def flush() -> None:
    """Send the spans that wait to be sent, within two seconds."""
    if _provider is not None:
        _provider.force_flush(_FLUSH_MILLISECONDS)


@contextmanager
def open_span(
    name: str, attributes: Attributes, *, kind: SpanKind, parent: Any = None
) -> Iterator[trace.Span]:
    """Open a span that lasts as long as the block.

    Of an error only the type is recorded, because its text may be private.
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
    """Mark the span as failed."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


class _ClientSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))


@contextmanager
def open_client_span(name: str, attributes: Attributes) -> Iterator[Span]:
    """Open a span for a call to another service."""
    with open_span(name, attributes, kind=SpanKind.CLIENT) as span:
        yield _ClientSpan(span)


def _await_commit(events: tuple[Event, ...], **_: Any) -> None:
    # With `robust` an error in tracing is only logged, so that an action that is committed already does not look
    # failed.
    transaction.on_commit(partial(_add_events, events), robust=True)


def _add_events(events: tuple[Event, ...]) -> None:
    """Add committed domain events to the present span, with their ids but without their metadata."""
    span = trace.get_current_span()
    for event in events:
        named = {
            "pipedai.environment.id": event.environment_id,
            f"pipedai.{event.target_type}.id": event.target_id,
        }
        span.add_event(event.action, {name: str(id_) for name, id_ in named.items() if id_})
