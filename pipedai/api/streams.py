"""What the views of event streams share. `pipedai.server.event_stream` holds the streams open."""

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from django.http import HttpResponse
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from pipedai.api.exceptions import unless_read_only
from pipedai.api.principal import principal_of
from pipedai.api.renderers import JSONRenderer
from pipedai.api.schema.operation import header
from pipedai.api.throttling import TooManyRequests
from pipedai.server.memory_budget import RequestLimit
from pipedai.server.ticket import STREAM, StreamTicket
from pipedai.wakeups import ANNOUNCED_EVERY_SECONDS

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = header(
    "Last-Event-ID",
    {"type": "string"},
    description="The id of the last event that was read.",
)
# How many event streams one user or key may have open in one web process, as API.md says.
MAX_STREAMS = 20
_STREAMS = RequestLimit(MAX_STREAMS)

T = TypeVar("T", bound=StreamTicket)


class StreamViewMixin(ViewSet):
    """A view of an event stream. It ignores the Accept header: a stream has one format, and errors are JSON."""

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        return JSONRenderer(), JSONRenderer.media_type


def ticket_of(request: Request, kind: type[T], *, group: UUID) -> T:
    """Returns the ticket of the stream that asks, or a new one for any other request. `group`, the id of a workspace or
    environment, takes turns with others.
    """
    ticket = request.META.get("asgi.scope", {}).get(STREAM)
    if not isinstance(ticket, kind):
        ticket = kind()
    ticket.asked += 1
    ticket.workspace_id = group
    ticket.hears_of = frozenset([principal_of(request).id])
    return ticket


def count_stream(request: Request, ticket: StreamTicket) -> None:
    """Counts a new stream as one of its caller's. Raises TooManyRequests if the caller has MAX_STREAMS open."""
    if ticket.asked == 1 and not _STREAMS.admits(principal_of(request).id, request):
        raise TooManyRequests(
            f"You have {MAX_STREAMS} streams open already: close one of them first.",
            headers={"Retry-After": "5"},
        )


def announce_stream(ticket: StreamTicket, announce: Callable[[], None]) -> None:
    """Calls `announce` every few seconds, so that all processes know of the stream; a standby can't tell."""
    now = time.monotonic()
    if now >= ticket.announce_again_at:
        ticket.announce_again_at = now + ANNOUNCED_EVERY_SECONDS
        with unless_read_only():
            announce()


def event_text(data: str, *, id_: int | None = None, event: str | None = None) -> str:
    head = "" if id_ is None else f"id: {id_}\n"
    name = "" if event is None else f"event: {event}\n"
    return f"{head}{name}data: {data}\n\n"


def stream_answer(text: str) -> HttpResponse:
    return HttpResponse(text, content_type=MEDIA_TYPE)
