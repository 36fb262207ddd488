"""The endpoint that streams a worker's events as server-sent events."""

import json
from uuid import UUID

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from pipedai.api.principal import HostPrincipal, KeyPrincipal, principal_of
from pipedai.api.renderers import JSONEncoder, JSONRenderer, iso_time
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.schema.parameters import header
from pipedai.server.ticket import STREAM, StreamTicket
from pipedai.sql import Row
from workers.hosts.access import HostViewSet
from workers.worker_events import read_events
from workspaces.permissions import IsAdmin


class WorkerEventViewSet(HostViewSet):
    """The endpoint that streams the events of one worker to its host or to an admin's script."""

    tag = "Hosts"
    permissions = {"stream": IsAdmin}

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        """Ignores the Accept header, because the stream has one format and errors are JSON whatever is asked for."""
        return JSONRenderer(), JSONRenderer.media_type

    @Operation(
        id="streamWorkerEvents",
        summary="Stream a worker's events",
        parameters=(
            header(
                "Last-Event-ID",
                {"type": "string"},
                description="The id of the last event that was read.",
            ),
        ),
        answers={
            200: answer(
                "WorkerEvent",
                "An event of a worker: the `data` of a server-sent event.",
                type=serializers.CharField(),
                ts=serializers.DateTimeField(),
                workerId=serializers.UUIDField(),
                runId=serializers.UUIDField(required=False),
                triggerId=serializers.UUIDField(required=False),
                status=serializers.CharField(required=False),
                maxConcurrency=serializers.IntegerField(required=False),
            )
        },
        media_type="text/event-stream",
    )
    def stream(self, request: Request, worker_id: UUID) -> HttpResponse:
        """Answers GET /workers/:id/events/stream with the events after the last one that the client has read.

        It does not wait for events. The part of the web process that keeps event streams open calls this method again
        and again, as long as the client reads. The ticket is an object that belongs to one open stream and remembers
        which events were sent.
        """
        ticket = request.META.get("asgi.scope", {}).get(STREAM)
        if not isinstance(ticket, StreamTicket):
            ticket = StreamTicket()
        ticket.asked += 1
        principal = principal_of(request)
        assert isinstance(principal, HostPrincipal | KeyPrincipal)
        ticket.key_id, ticket.workspace_id = principal.id, principal.workspace_id
        rows = read_events(
            ticket,
            worker_id=worker_id,
            last_event_id=request.META.get("HTTP_LAST_EVENT_ID"),
        )
        return HttpResponse(
            "".join(_told(row, worker_id) for row in rows), content_type="text/event-stream"
        )


def _told(row: Row, worker_id: UUID) -> str:
    data = {
        "type": row["type"],
        "ts": iso_time(row["at"]),
        "workerId": worker_id,
        **json.loads(row["data"]),
    }
    return f"id: {row['id']}\ndata: {json.dumps(data, cls=JSONEncoder)}\n\n"
