"""OpenTelemetry traces, where the standard variables ask for them; docs/traces.md says what is in them.

OpenTelemetry itself is in `provider`, and not imported unless it is on.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

Attributes = Mapping[str, str | int]


class Span(Protocol):
    """One piece of work under way."""

    def set(self, attributes: Attributes) -> None:
        """Say more of it: no secret, no URL, nothing that a tenant wrote."""


class _NoSpan:
    def set(self, attributes: Attributes) -> None:
        pass


_OFF: AbstractContextManager[Span] = nullcontext(_NoSpan())
_open: Callable[[str, Attributes], AbstractContextManager[Span]] | None = None


def is_on() -> bool:
    """Whether traces are asked for. Raises ImproperlyConfigured if they can't be had."""
    if not settings.TRACES_ENDPOINT or settings.OTEL_SDK_DISABLED:
        return False
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.exporter.otlp.proto.http"):
        raise ImproperlyConfigured(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not installed:"
            " pip install -r requirements.txt -r requirements-otel.txt"
        )
    return True


def start(service: str) -> None:
    """Trace this process from now on, under this name unless OTEL_SERVICE_NAME has another."""
    global _open
    from pipedai.tracing.provider import open_client_span, set_up

    set_up(service)
    _open = open_client_span


def flush() -> None:
    """Send what has not been sent, at the end of the process; for two seconds at most."""
    if _open:
        from pipedai.tracing import provider

        provider.flush()


def client_span(name: str, attributes: Attributes) -> AbstractContextManager[Span]:
    """A call to somebody else; nothing when traces are off."""
    return _open(name, attributes) if _open else _OFF
