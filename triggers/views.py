"""The endpoints of triggers: list, make, read, change and delete them, and replace their MCP headers."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Func, IntegerField, TextField
from django.db.models.functions import Cast, Coalesce
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.pagination import HeavyPaginator
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from pipedai.replica.reading import from_replica
from triggers import queries, services, tenancy
from triggers.filters import TriggerFilters, check_tenant_ids
from triggers.serializers import RotateBody, TriggerBody, TriggerSerializer
from workspaces.access import TenantViewSet
from workspaces.permissions import IsAdmin, IsViewer

# The fields of a trigger in the OpenAPI document's example of a request body.
_TRIGGER = {
    "name": "Morning report",
    "prompt": "Summarise what happened overnight.",
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders": {"Authorization": "Bearer a-secret-of-yours"},
    "schedule": "0 6 * * mon-fri",
    "timezone": "Europe/Berlin",
}


def octets_of(prompt: F, output_schema: F) -> Any:
    """Returns the SQL expression for the size of a revision's long texts, in bytes."""
    return _octets(prompt) + Coalesce(_octets(Cast(output_schema, TextField())), 0)


def _octets(text: Any) -> Func:
    return Func(text, function="octet_length", output_field=IntegerField())


class TriggerPaginator(HeavyPaginator):
    """The size of a page is also limited in bytes, because triggers have prompts and output schemas."""

    weight = octets_of(F("revision__prompt"), F("revision__output_schema"))


class EnvironmentTriggerViewSet(TenantViewSet):
    tag = "Triggers"
    permissions = {"list": IsViewer, "create": IsAdmin}
    filter_names = TriggerFilters.names()
    pagination_class = TriggerPaginator

    @Operation(
        "GET /environments/{environmentId}/triggers",
        id="listTriggers",
        summary="List triggers",
        items=TriggerSerializer,
        filters=TriggerFilters,
        says={
            200: "A list of triggers; a page ends before its prompts and schemas come to over 4 MiB."
        },
        errors={400: "A bad parameter, or a worker that is not this environment's."},
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = queries.triggers().filter(environment_id=environment_id)
        filters = TriggerFilters.read(rows, request)
        check_tenant_ids(environment_id, filters)
        return self.page(request, filters.qs, TriggerSerializer, ready=queries.with_last_runs)

    @Operation(
        "POST /environments/{environmentId}/triggers",
        id="createTrigger",
        summary="Make a trigger",
        body=TriggerBody,
        example=_TRIGGER,
        answers={201: TriggerSerializer},
        says={201: "With the trigger."},
        errors={
            409: "`key_taken`, `ceiling_reached` or `chain_circle`.",
            503: "The secrets can't be sealed.",
        },
        audit=("trigger.created",),
    )
    def create(self, request: Request, environment_id: UUID) -> Response:
        values = read_body(TriggerBody, request)
        # The answer is read in the transaction that makes the trigger. If reading fails and the caller gets a 503, no
        # trigger stays behind.
        with transaction.atomic():
            trigger_id = services.create_trigger(
                environment_id=environment_id, actor=actor_of(request), values=values
            )
            shown = trigger_shown(trigger_id)
        return Response(shown, status=201)


class TriggerViewSet(TenantViewSet):
    row = tenancy.LIVE_TRIGGERS
    tag = "Triggers"
    permissions = {
        "retrieve": IsViewer,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "rotate_mcp_token": IsAdmin,
    }

    @Operation(
        "GET /triggers/{triggerId}",
        id="getTrigger",
        summary="Get a trigger",
        answers={200: TriggerSerializer},
        says={200: "With the trigger."},
    )
    def retrieve(self, request: Request, trigger_id: UUID) -> Response:
        return Response(trigger_shown(trigger_id))

    @Operation(
        "PATCH /triggers/{triggerId}",
        id="updateTrigger",
        summary="Change a trigger",
        body=TriggerBody,
        partial=True,
        fields_as="POST /environments/{environmentId}/triggers",
        example={"enabled": False},
        answers={200: TriggerSerializer},
        says={200: "With the trigger; what is as it was changes nothing."},
        errors={
            409: "`key_taken`, `ceiling_reached` or `chain_circle`.",
            503: "The secrets can't be sealed.",
        },
        audit=("trigger.updated",),
    )
    def update(self, request: Request, trigger_id: UUID) -> Response:
        services.update_trigger(
            trigger_id=trigger_id,
            values=read_body(TriggerBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(trigger_shown(trigger_id))

    @Operation(
        "DELETE /triggers/{triggerId}",
        id="deleteTrigger",
        summary="Delete a trigger",
        answers={204: None},
        errors={409: "`unfinished_runs`, or `has_children`: triggers listen to it."},
        audit=("trigger.deleted",),
    )
    def destroy(self, request: Request, trigger_id: UUID) -> Response:
        services.delete_trigger(trigger_id=trigger_id, actor=actor_of(request))
        return Response(status=204)

    @Operation(
        "POST /triggers/{triggerId}/rotate-mcp-token",
        id="rotateMcpToken",
        summary="Rotate a trigger's MCP headers",
        body=RotateBody,
        example={"mcpHeaders": {"Authorization": "Bearer a-newer-secret"}},
        answers={200: TriggerSerializer},
        says={200: "With the trigger."},
        errors={503: "The headers can't be sealed."},
        audit=("mcp-token.rotated",),
    )
    def rotate_mcp_token(self, request: Request, trigger_id: UUID) -> Response:
        services.rotate_mcp_token(
            trigger_id=trigger_id, **read_body(RotateBody, request), actor=actor_of(request)
        )
        return Response(trigger_shown(trigger_id))


def trigger_shown(trigger_id: UUID) -> Any:
    """Returns the trigger as an answer shows it, with its last run."""
    (row,) = queries.with_last_runs([queries.triggers().get(id=trigger_id)])
    return TriggerSerializer(row).data
