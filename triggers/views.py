"""The endpoints of triggers: list, make, read, change and delete them, and replace their MCP headers."""

from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField, QuerySet, TextField
from django.db.models.functions import Cast, Coalesce
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.pagination import HeavyPaginator
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from triggers import queries, services
from triggers.filters import TriggerFilters, check_tenant_ids
from triggers.serializers import RotateBody, TriggerBody, TriggerSerializer
from workspaces.access import IsAdmin
from workspaces.resource_views import ResourceViewSet


def octets_of(prompt: F, output_schema: F) -> Any:
    """Returns the SQL expression for the size of a revision's long texts, in bytes."""
    return _octets(prompt) + Coalesce(_octets(Cast(output_schema, TextField())), 0)


def _octets(text: Any) -> Func:
    return Func(text, function="octet_length", output_field=IntegerField())


class TriggerPaginator(HeavyPaginator):
    """The size of a page is also limited in bytes, because triggers have prompts and output schemas."""

    weight = octets_of(F("revision__prompt"), F("revision__output_schema"))


class TriggerViewSet(ResourceViewSet):
    tag = "Triggers"
    resource = services.TRIGGERS
    body = TriggerBody
    serializer = TriggerSerializer
    filters = TriggerFilters
    pagination_class = TriggerPaginator
    grows = True
    reads_inside = True
    example = {
        "name": "Morning report",
        "prompt": "Summarise what happened overnight.",
        "mcpUrl": "https://mcp.example.com/mcp",
        "mcpHeaders": {"Authorization": "Bearer a-secret-of-yours"},
        "schedule": "0 6 * * mon-fri",
        "timezone": "Europe/Berlin",
    }
    change = {"enabled": False}
    permissions = {"rotate_mcp_token": IsAdmin}

    @classmethod
    def rows(cls) -> QuerySet[Any, Any]:
        return queries.triggers()

    @classmethod
    def shown(cls, rows: list[Any]) -> Any:
        return super().shown(queries.with_last_runs(rows))

    def filtered(self, rows: QuerySet[Any, Any], request: Request) -> QuerySet[Any, Any]:
        filters = TriggerFilters.read(rows, request)
        check_tenant_ids(self.access.environment_id, filters)
        return filters.qs

    @Operation(
        "POST /triggers/{triggerId}/rotate-mcp-token",
        id="rotateMcpToken",
        summary="Rotate a trigger's MCP headers",
        body=RotateBody,
        example={"mcpHeaders": {"Authorization": "Bearer a-newer-secret"}},
        answers={200: TriggerSerializer},
    )
    def rotate_mcp_token(self, request: Request, trigger_id: UUID) -> Response:
        services.rotate_mcp_token(
            trigger_id=trigger_id, **read_body(RotateBody, request), actor=actor_of(request)
        )
        return Response(self.one(trigger_id))
