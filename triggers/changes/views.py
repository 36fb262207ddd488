"""The endpoint that streams what changes in an environment."""

from uuid import UUID

from django.http import HttpResponse
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.principal import principal_of
from pipedai.api.renderers import compact_json
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.views import (
    MEDIA_TYPE,
    StreamViewMixin,
    count_stream,
    event_text,
    stream_answer,
    ticket_of,
)
from pipedai.replica.reading import remember
from pipedai.server.ticket import EnvironmentStreamTicket
from triggers.changes.reading import changes_of
from workspaces.access import IsViewer, TenantViewSet


class EnvironmentEventViewSet(StreamViewMixin, TenantViewSet):
    tag = "Environments"
    permissions = {"stream": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/events/stream",
        id="streamEnvironmentEvents",
        summary="Stream an environment's changes",
        answers={
            200: answer(
                "EnvironmentEvent",
                "Something of the environment has changed.",
                type=serializers.ChoiceField(
                    choices=["run", "worker", "incident", "connection", "all"]
                ),
                id=serializers.UUIDField(required=False),
                status=serializers.CharField(required=False),
            )
        },
        media_type=MEDIA_TYPE,
    )
    def stream(self, request: Request, environment_id: UUID) -> HttpResponse:
        """Answers with the changes since the last answer. The web process calls it as long as the reader reads."""
        ticket = ticket_of(request, EnvironmentStreamTicket, group=environment_id)
        count_stream(request, ticket)
        told = [
            {"type": change.kind, "id": str(change.id), "status": change.status}
            for change in changes_of(ticket, environment_id=environment_id)
        ]
        if ticket.missed:
            # Some notifications were lost, so the reader must read everything again.
            ticket.missed = False
            told.insert(0, {"type": "all"})
        if told:
            # Whoever is told of a change reads a list next, which must show the change.
            remember([principal_of(request).id])
        return stream_answer("".join(event_text(compact_json(each)) for each in told))
