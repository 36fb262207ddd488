"""Writes OpenTelemetry traces if the standard variables of OpenTelemetry ask for them (docs/traces.md)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

Attributes = Mapping[str, str | int]


class Span(Protocol):
    """One piece of work that is under way, as a trace shows it."""

    def set_attributes(self, attributes: Attributes) -> None:
        """Add attributes to the span. They must not contain a secret, a URL or a text that a tenant wrote."""


class _NoSpan:
    def set_attributes(self, attributes: Attributes) -> None:
        pass


_OFF: AbstractContextManager[Span] = nullcontext(_NoSpan())
_open: Callable[[str, Attributes], AbstractContextManager[Span]] | None = None


def is_on() -> bool:
    """Whether the settings ask for traces. Raises ImproperlyConfigured if they do but OpenTelemetry is not usable."""
    if not settings.TRACES_ENDPOINT or settings.OTEL_SDK_DISABLED:
        return False
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.exporter.otlp.proto.http"):
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not installed:"
            " pip install -r requirements.txt -r requirements-otel.txt"
        )
    return True


def start(service: str) -> None:
    global _open
    from pipedai.tracing.provider import open_span, set_up

    set_up(service)
    _open = open_span


def flush() -> None:
    """Send the spans that wait to be sent, within two seconds. Call it at the end of the process."""
    if _open:
        from pipedai.tracing import provider

        provider.flush()


def client_span(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """Return a span for a call to another service. The span does nothing if traces are off."""
    return _open(name, attributes) if _open else _OFF
