"""The endpoint that streams a worker's events as server-sent events."""

import json
from uuid import UUID

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.principal import HostPrincipal, KeyPrincipal, principal_of
from pipedai.api.renderers import compact_json, iso_time
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import (
    LAST_EVENT_ID,
    MEDIA_TYPE,
    StreamViewMixin,
    count_stream,
    event_text,
    stream_answer,
    ticket_of,
)
from pipedai.server.ticket import WorkerStreamTicket
from pipedai.sql import Row
from workers.hosts.access import HostViewSet
from workers.worker_events import read_events
from workspaces.permissions import IsAdmin


class WorkerEventViewSet(StreamViewMixin, HostViewSet):
    """The endpoint that streams the events of one worker to its host or to an admin's script."""

    tag = "Hosts"
    permissions = {"stream": IsAdmin}

    @Operation(
        "GET /workers/{workerId}/events/stream",
        id="streamWorkerEvents",
        summary="Stream a worker's events",
        parameters=(LAST_EVENT_ID,),
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
        media_type=MEDIA_TYPE,
    )
    def stream(self, request: Request, worker_id: UUID) -> HttpResponse:
        """Answers with the events that the client has not read. The web process calls it again and again as long as the
        client reads; the ticket remembers what was sent.
        """
        principal = principal_of(request)
        assert isinstance(principal, HostPrincipal | KeyPrincipal)
        ticket = ticket_of(request, WorkerStreamTicket, group=principal.workspace_id)
        count_stream(request, ticket)
        rows = read_events(
            ticket,
            worker_id=worker_id,
            last_event_id=request.META.get("HTTP_LAST_EVENT_ID"),
        )
        return stream_answer("".join(_text_of(row, worker_id) for row in rows))


def _text_of(row: Row, worker_id: UUID) -> str:
    data = {
        "type": row["type"],
        "ts": iso_time(row["at"]),
        "workerId": worker_id,
        **json.loads(row["data"]),
    }
    return event_text(compact_json(data), id_=row["id"])
