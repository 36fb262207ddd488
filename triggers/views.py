"""The endpoints of triggers, runs, ticks and schedule previews."""

import re
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Func, IntegerField, TextField
from django.db.models.functions import Cast, Coalesce
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.pagination import HeavyPaginator, KeysetPaginator
from pipedai.api.principal import KeyPrincipal, actor_of, principal_of
from pipedai.api.serializers import read_body
from pipedai.api.throttling import Rate, TooManyRequests
from pipedai.server.places import Places
from pipedai.sql import database_now
from triggers import queries, services, tenancy
from triggers.filters import EnvironmentRunFilters, RunFilters, TriggerFilters, check_tenant_ids
from triggers.idempotency import run_trigger
from triggers.models import Tick
from triggers.runs import lifecycle
from triggers.schedules import cron, preview
from triggers.serializers import (
    ComingTimeSerializer,
    RotateBody,
    RunBody,
    RunDetailSerializer,
    RunSerializer,
    SchedulePreviewBody,
    TickSerializer,
    TriggerBody,
    TriggerSerializer,
)
from triggers.states import Source
from workspaces.access import TenantViewSet, find_visible
from workspaces.permissions import IsAdmin, IsOperator, IsViewer

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)


class RunPaginator(KeysetPaginator):
    """Pages of runs, in the order of their queueing."""

    time_field = "queued_at"


def _octets(text: Any) -> Func:
    return Func(text, function="octet_length", output_field=IntegerField())


class TriggerPaginator(HeavyPaginator):
    """Pages of triggers. They are bounded in bytes as well, since each is shown with its prompt and output schema."""

    weight = _octets(F("revision__prompt")) + Coalesce(
        _octets(Cast("revision__output_schema", TextField())), 0
    )


class TickPaginator(KeysetPaginator):
    """Pages of ticks, in the order of their due times."""

    time_field = "tick_at"


class EnvironmentTriggerViewSet(TenantViewSet):
    """The triggers of an environment."""

    permissions = {"list": IsViewer, "create": IsAdmin}
    filter_names = TriggerFilters.names()

    def list(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/triggers"""
        rows = queries.triggers().filter(environment_id=environment_id)
        filters = TriggerFilters.read(rows, request)
        check_tenant_ids(environment_id, filters)
        paginator = TriggerPaginator()
        page = queries.with_last_runs(paginator.paginate_queryset(filters.qs, request, self))
        return paginator.get_paginated_response(TriggerSerializer(page, many=True).data)

    def create(self, request: Request, environment_id: UUID) -> Response:
        """POST /environments/:envId/triggers"""
        values = read_body(TriggerBody, request)
        # The answer is read in the same transaction: if that fails with a 503, no trigger may be left behind.
        with transaction.atomic():
            trigger_id = services.create_trigger(
                environment_id=environment_id, actor=actor_of(request), values=values
            )
            shown = _shown(trigger_id)
        return Response(shown, status=201)


# A preview takes some milliseconds of CPU. Several at once would take the process from everybody else.
_PREVIEWS = Places(1)


class SchedulePreviewViewSet(TenantViewSet):
    """Previews of schedules."""

    permissions = {"preview": IsViewer}
    # A page that shows a preview asks for another at each change of the field.
    environment_rates = {"preview": Rate("schedule-preview", 120, 60)}

    def preview(self, request: Request, environment_id: UUID) -> Response:
        """POST /environments/:envId/schedule-preview: changes nothing."""
        body = read_body(SchedulePreviewBody, request)
        if not _PREVIEWS.take(environment_id, request):
            raise TooManyRequests(
                "A preview is being worked out already: ask again when it is there.",
                headers={"Retry-After": "1"},
            )
        try:
            schedule = cron.parse(body["schedule"], body["timezone"])
            times = preview.coming_times(schedule, database_now(), body["count"])
        except cron.BadSchedule as error:
            raise Invalid({"schedule": [str(error)]}) from None
        return Response(
            {
                "description": preview.describe(schedule),
                "times": ComingTimeSerializer(times, many=True).data,
            }
        )


class TriggerViewSet(TenantViewSet):
    """One trigger."""

    permissions = {
        "retrieve": IsViewer,
        "update": IsAdmin,
        "destroy": IsAdmin,
        "rotate_mcp_token": IsAdmin,
        "run": IsOperator,
        "runs": IsViewer,
        "ticks": IsViewer,
    }
    # Running a trigger does not count against the caller's write rate, because the ceiling of the queue bounds it.
    unmetered = frozenset({"run"})
    filter_names = RunFilters.names()

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds the trigger. Only `run` finds a deleted one, since a repeat must still get its first answer."""
        rows = tenancy.ALL_TRIGGERS if self.action == "run" else tenancy.LIVE_TRIGGERS
        self.access = find_visible(principal_of(request), rows, kwargs["trigger_id"])

    def retrieve(self, request: Request, trigger_id: UUID) -> Response:
        """GET /triggers/:id"""
        return Response(_shown(trigger_id))

    def update(self, request: Request, trigger_id: UUID) -> Response:
        """PATCH /triggers/:id"""
        services.update_trigger(
            trigger_id=trigger_id,
            values=read_body(TriggerBody, request, partial=True),
            actor=actor_of(request),
        )
        return Response(_shown(trigger_id))

    def destroy(self, request: Request, trigger_id: UUID) -> Response:
        """DELETE /triggers/:id"""
        services.delete_trigger(trigger_id=trigger_id, actor=actor_of(request))
        return Response(status=204)

    def rotate_mcp_token(self, request: Request, trigger_id: UUID) -> Response:
        """POST /triggers/:id/rotate-mcp-token"""
        services.rotate_mcp_token(
            trigger_id=trigger_id, **read_body(RotateBody, request), actor=actor_of(request)
        )
        return Response(_shown(trigger_id))

    def run(self, request: Request, trigger_id: UUID) -> Response:
        """POST /triggers/:id/run"""
        principal = principal_of(request)
        queued = run_trigger(
            trigger_id=trigger_id,
            caller_id=principal.id,
            key=_idempotency_key(request),
            **read_body(RunBody, request),
            source=Source.API if isinstance(principal, KeyPrincipal) else Source.MANUAL,
            actor=actor_of(request),
        )
        if queued.replayed:
            return Response(
                RunDetailSerializer(queued.run).data, headers={"Idempotent-Replayed": "true"}
            )
        return Response(RunDetailSerializer(queued.run).data, status=201)

    def runs(self, request: Request, trigger_id: UUID) -> Response:
        """GET /triggers/:id/runs"""
        filters = RunFilters.read(queries.runs().filter(trigger_id=trigger_id), request)
        return _run_page(filters.parts, request, self)

    def ticks(self, request: Request, trigger_id: UUID) -> Response:
        """GET /triggers/:id/ticks"""
        rows = Tick.objects.filter(trigger_id=trigger_id)
        paginator = TickPaginator()
        page = paginator.paginate_queryset(rows, request, self)
        return paginator.get_paginated_response(TickSerializer(page, many=True).data)


class EnvironmentRunViewSet(TenantViewSet):
    """The runs of an environment, across its triggers."""

    permissions = {"list": IsViewer}
    filter_names = EnvironmentRunFilters.names()

    def list(self, request: Request, environment_id: UUID) -> Response:
        """GET /environments/:envId/runs"""
        rows = queries.runs().filter(environment_id=environment_id)
        filters = EnvironmentRunFilters.read(rows, request)
        check_tenant_ids(environment_id, filters)
        return _run_page(filters.parts, request, self)


class RunViewSet(TenantViewSet):
    """One run."""

    permissions = {"retrieve": IsViewer, "cancel": IsOperator, "tool_calls": IsViewer}

    def find_tenant(self, request: Request, **kwargs: Any) -> None:
        """Finds the run."""
        self.access = find_visible(principal_of(request), tenancy.ALL_RUNS, kwargs["run_id"])

    def retrieve(self, request: Request, run_id: UUID) -> Response:
        """GET /runs/:id"""
        return Response(RunDetailSerializer(queries.run_in_full(run_id)).data)

    def tool_calls(self, request: Request, run_id: UUID) -> Response:
        """GET /runs/:id/tool-calls"""
        return Response(queries.tool_calls_of(run_id))

    def cancel(self, request: Request, run_id: UUID) -> Response:
        """POST /runs/:id/cancel"""
        lifecycle.cancel_run(run_id=run_id, actor=actor_of(request))
        return Response(RunDetailSerializer(queries.run_in_full(run_id)).data)


def _shown(trigger_id: UUID) -> Any:
    (row,) = queries.with_last_runs([queries.triggers().get(id=trigger_id)])
    return TriggerSerializer(row).data


def _run_page(parts: list[Any], request: Request, view: TenantViewSet) -> Response:
    paginator = RunPaginator()
    page = paginator.paginate_parts(parts, request, view)
    return paginator.get_paginated_response(RunSerializer(page, many=True).data)


def _idempotency_key(request: Request) -> str | None:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Invalid({"Idempotency-Key": ["Must be 1 to 255 printable characters."]})
    return key
