"""The endpoints of triggers: list, make, read, change and delete them, and replace their MCP headers."""

from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField, Q, QuerySet, TextField
from django.db.models.functions import Cast, Coalesce
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.bulk import BULK_ANSWER, done_to_each
from pipedai.api.filters import (
    ApiFilterSet,
    IdFilter,
    IncludeFilter,
    TextFilter,
    TrueFalseFilter,
    WordFilter,
    WordsFilter,
)
from pipedai.api.pagination import HeavyPaginator, SortedPaginator, counts_of
from pipedai.api.principal import actor_of
from pipedai.api.schema.operation import Operation
from pipedai.api.serializers import read_body
from pipedai.replica.reading import from_replica
from triggers import serializers, services
from triggers.listing import KINDS, MOST_COUNTED, SORTS, sort_keys, with_recent_runs
from triggers.models import Listener
from triggers.serializers import (
    BulkTriggersBody,
    ListedTriggerSerializer,
    RotateBody,
    TriggerBody,
    TriggerChange,
    TriggerSerializer,
)
from triggers.states import Health, RecordEvents
from workspaces.access import IsAdmin
from workspaces.resource_views import ResourceViewSet
from workspaces.roles import Role


class ListensToFilter(IdFilter):
    """Keeps the triggers that listen to the source or the trigger with this id."""

    def filter(self, qs: QuerySet[Any], value: UUID | None) -> QuerySet[Any]:
        if value is None:
            return qs
        listeners = Listener.objects.filter(Q(source_id=value) | Q(upstream_id=value))
        return qs.filter(id__in=listeners.values("trigger_id"))


class TriggerFilters(ApiFilterSet):
    """The filters of a list of triggers. `name` is a part of the name, and `search` one of the name or the key, in any
    case.
    """

    workerId = IdFilter(field_name="worker_id", of=["workers.Worker"])
    poolId = IdFilter(field_name="pool_id", of=["workers.Pool"])
    connectionId = IdFilter(field_name="connection_id", of=["workspaces.Connection"])
    listensTo = ListensToFilter(of=["triggers.EventSource", "triggers.Trigger"])
    enabled = TrueFalseFilter(field_name="enabled")
    recordEvents = WordsFilter(field_name="record_events", choices=RecordEvents.values)
    health = WordsFilter(field_name="health", choices=Health.values)
    name = TextFilter(field_name="name", lookup_expr="icontains", max_length=200)
    search = TextFilter(method="named", max_length=200)
    # The paginator orders the rows, so this filter leaves them as they are.
    sort = WordFilter(choices=[(each, each) for each in SORTS], method="as_they_are")
    include = IncludeFilter(choices=["total", "counts", "recent"])

    def named(self, rows: QuerySet[Any], _name: str, text: str) -> QuerySet[Any]:
        return rows.filter(Q(name__icontains=text) | Q(key__icontains=text))


def octets_of(prompt: F, *documents: F) -> Any:
    """Returns the SQL expression for the size of a revision's long texts, in bytes."""
    sizes = (Coalesce(_octets(Cast(document, TextField())), 0) for document in documents)
    return sum(sizes, _octets(prompt))


def _octets(text: Any) -> Func:
    return Func(text, function="octet_length", output_field=IntegerField())


class TriggerPaginator(HeavyPaginator):
    """Makes pages whose size is also limited in bytes, because triggers have long prompts and output schemas."""

    weight = octets_of(F("revision__prompt"), F("revision__output_schema"), F("revision__before"))


class SortedTriggerPaginator(SortedPaginator):
    weight = TriggerPaginator.weight


class TriggerViewSet(ResourceViewSet):
    tag = "Triggers"
    resource = services.TRIGGERS
    body = TriggerBody
    changing = TriggerChange
    serializer = TriggerSerializer
    filters = TriggerFilters
    pagination_class = TriggerPaginator
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
    permissions = {"rotate_mcp_token": IsAdmin, "bulk": IsAdmin}

    def rows(self) -> QuerySet[Any, Any]:
        return serializers.triggers()

    def shown(self, rows: list[Any]) -> Any:
        return super().shown(self._told(rows))

    def _told(self, rows: list[Any]) -> list[Any]:
        """Returns the rows with their last runs. For viewers it leaves out the names of headers."""
        if not self.access.role.includes(Role.OPERATOR):
            rows = [{**row, "mcp_header_names": None} for row in rows]
        return serializers.with_last_runs(rows)

    @Operation(
        "GET /environments/{environmentId}/triggers",
        id="listTriggers",
        summary="List triggers",
        items=ListedTriggerSerializer,
        filters=TriggerFilters,
        total=True,
        counts=tuple(KINDS),
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        rows = self.rows().filter(environment_id=environment_id)
        filters = TriggerFilters.read(rows, request, environment_id=environment_id)
        include, sort = filters.values["include"], filters.values["sort"]

        def shown(rows: Any) -> Any:
            if "recent" not in include:
                return self.shown(rows)
            return ListedTriggerSerializer(with_recent_runs(self._told(rows)), many=True).data

        pages = partial(SortedTriggerPaginator, *sort_keys(sort, environment_id)) if sort else None
        response = self.page_shown(request, filters.qs, shown, paginator=pages)
        if "total" in include:
            response.data["total"] = filters.qs.values("id")[:MOST_COUNTED].count()
        if "counts" in include:
            live = self.resource.live.filter(environment_id=environment_id)
            response.data["counts"] = counts_of(live.annotate(health=serializers.HEALTH), KINDS)
        return response

    @Operation(
        "POST /environments/{environmentId}/triggers/bulk",
        id="changeTriggers",
        summary="Pause, resume or delete several triggers",
        body=BulkTriggersBody,
        answers=BULK_ANSWER,
    )
    def bulk(self, request: Request, environment_id: UUID, body: dict[str, Any]) -> dict[str, Any]:
        of: dict[str, Any] = {"environment_id": environment_id, "actor": actor_of(request)}
        rows, values = self.resource.live, {"enabled": body["action"] == "resume"}

        def change(trigger_id: UUID) -> None:
            if body["action"] == "delete":
                self.resource.delete(trigger_id, **of)
            else:
                self.resource.update(trigger_id, values=values, **of)

        return done_to_each(rows.filter(environment_id=environment_id), body["ids"], change)

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
