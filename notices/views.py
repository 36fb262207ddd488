"""The endpoints of what needs attention in an environment, and of its incidents."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from notices.attention import find_attention
from notices.incidents import acknowledge_incident
from notices.models import Incident
from notices.serializers import (
    AttentionItemSerializer,
    IncidentFilters,
    IncidentSerializer,
    incidents_shown,
)
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import serializer_of
from pipedai.replica.reading import from_replica
from triggers.explain.answers import TimeTold, times_told
from workspaces.access import IsOperator, IsViewer, TenantViewSet


class AttentionViewSet(TenantViewSet):
    """What somebody has to see to in an environment."""

    tag = "Overview"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/attention",
        id="getAttention",
        summary="Get what needs attention",
        answers={
            200: answer(
                "Attention",
                "What needs attention, the most urgent first.",
                items=AttentionItemSerializer(many=True),
                total=serializers.IntegerField(),
                times=serializer_of(TimeTold)(many=True),
            )
        },
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Any:
        """Answers with the most urgent items, and with how many there are."""
        with times_told() as times:
            items, total = find_attention(environment_id)
        return {"items": items, "total": total, "times": times}


class IncidentPaginator(KeysetPaginator):
    time_field = "opened_at"


class IncidentViewSet(TenantViewSet):
    row = ("incident_id", "SELECT id, environment_id FROM incident")
    tag = "Incidents"
    permissions = {"list": IsViewer, "acknowledge": IsOperator}
    pagination_class = IncidentPaginator

    @Operation(
        "GET /environments/{environmentId}/incidents",
        id="listIncidents",
        summary="List incidents",
        items=IncidentSerializer,
        filters=IncidentFilters,
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = Incident.objects.filter(environment_id=environment_id)
        filters = IncidentFilters.read(rows, request, environment_id=environment_id)
        return self.page_shown(request, filters.parts, incidents_shown)

    @Operation(
        "POST /incidents/{incidentId}/acknowledge",
        id="acknowledgeIncident",
        summary="Acknowledge an incident",
        answers={200: IncidentSerializer},
    )
    def acknowledge(self, request: Request, incident_id: UUID) -> Response:
        acknowledge_incident(incident_id=incident_id, actor=actor_of(request))
        (shown,) = incidents_shown([Incident.objects.get(id=incident_id)])
        return Response(shown)
