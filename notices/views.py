"""The endpoints of incidents: list those of an environment, and acknowledge one."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from notices.incidents import acknowledge_incident
from notices.models import Incident
from notices.serializers import IncidentFilters, IncidentSerializer, incidents_shown
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.principal import actor_of, principal_of
from pipedai.api.schema.operation import Operation
from pipedai.replica.reading import from_replica
from triggers.filters import check_tenant_ids
from workspaces.access import IsOperator, IsViewer, TenantViewSet, find_visible

_ALL_INCIDENTS = "SELECT id, environment_id FROM incident"


class IncidentPaginator(KeysetPaginator):
    time_field = "opened_at"


class EnvironmentIncidentViewSet(TenantViewSet):
    tag = "Incidents"
    permissions = {"list": IsViewer}
    filter_names = IncidentFilters.names()

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
        filters = IncidentFilters.read(rows, request)
        check_tenant_ids(environment_id, filters)
        paginator = IncidentPaginator()
        page = paginator.paginate_parts(filters.parts, request, self)
        return paginator.get_paginated_response(incidents_shown(page))


class IncidentViewSet(TenantViewSet):
    tag = "Incidents"
    permissions = {"acknowledge": IsOperator}

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        self.access = find_visible(principal_of(request), _ALL_INCIDENTS, kwargs["incident_id"])

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
