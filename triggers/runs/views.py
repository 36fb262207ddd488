"""The endpoints of runs: run a trigger, list runs, read, cancel or rerun one."""

import re
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.bulk import BULK_ANSWER, done_to_each
from pipedai.api.errors import Invalid
from pipedai.api.pagination import KeysetPaginator, usual
from pipedai.api.principal import KeyPrincipal, actor_of, principal_of
from pipedai.api.schema.operation import Operation, answer, header
from pipedai.api.serializers import read_body
from pipedai.replica.reading import from_replica
from triggers import tenancy
from triggers.models import Run
from triggers.runs import lifecycle, queries
from triggers.runs.queries import EnvironmentRunFilters, RunFilters
from triggers.runs.queueing import Queued, rerun_run, run_trigger
from triggers.runs.serializers import (
    BulkRunsBody,
    RerunBody,
    RunBody,
    RunDetailSerializer,
    RunSerializer,
    ToolCallSerializer,
)
from triggers.states import Source, Status
from workspaces.access import IsOperator, IsViewer, TenantViewSet
from workspaces.roles import Role

_KEY_PATTERN = re.compile(r"[\x20-\x7e]{1,255}", re.ASCII)
_KEY_HEADER = header(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[ -~]{1,255}$"},
    description="Makes the call safe to repeat: for 24 h the same key with the same body makes one run.",
)


class RunPaginator(KeysetPaginator):
    time_field = "queued_at"
    sorts = False


class EndedRunPaginator(KeysetPaginator):
    time_field = "ended_at"
    # The index of an environment's ended runs has no ids, so PostgreSQL must sort the runs that ended at the same time.
    sorts = True


class TriggerRunViewSet(TenantViewSet):
    # Deleted triggers are included, because a repeated `Idempotency-Key` must still get its run.
    row = tenancy.ALL_TRIGGERS
    tag = "Triggers"
    permissions = {"run": IsOperator}
    # Running a trigger does not count against the caller's write rate, because the ceiling of the queue bounds it.
    unmetered = frozenset({"run"})

    @Operation(
        "POST /triggers/{triggerId}/run",
        id="runTrigger",
        summary="Run a trigger",
        body=RunBody,
        example={"payload": {"day": "monday"}},
        parameters=(_KEY_HEADER,),
        answers={201: RunDetailSerializer, 200: RunDetailSerializer},
        answer_headers={200: ("Idempotent-Replayed",)},
    )
    def run(self, request: Request, trigger_id: UUID) -> Response:
        return _answer(
            run_trigger(
                trigger_id=trigger_id,
                key=_idempotency_key(request),
                **read_body(RunBody, request),
                **_caller(request),
            )
        )


class TriggerRunListViewSet(TenantViewSet):
    row = tenancy.LIVE_TRIGGERS
    tag = "Triggers"
    permissions = {"list": IsViewer}

    @Operation(
        "GET /triggers/{triggerId}/runs",
        id="listTriggerRuns",
        summary="List a trigger's runs",
        items=RunSerializer,
        filters=RunFilters,
    )
    @from_replica
    def list(self, request: Request, trigger_id: UUID) -> Response:
        runs = Run.objects.filter(trigger_id=usual(trigger_id))
        zone = partial(tenancy.zone_of_trigger, trigger_id)
        filters = RunFilters.read(runs, request, zone=zone)
        return _run_page(filters, request, self)


class EnvironmentRunViewSet(TenantViewSet):
    tag = "Runs"
    permissions = {"list": IsViewer, "bulk": IsOperator}

    @Operation(
        "POST /environments/{environmentId}/runs/bulk",
        id="changeRuns",
        summary="Rerun or cancel several runs",
        body=BulkRunsBody,
        parameters=(_KEY_HEADER,),
        answers=BULK_ANSWER,
    )
    def bulk(self, request: Request, environment_id: UUID, body: dict[str, Any]) -> dict[str, Any]:
        """Reruns have a key for each run, made of the request's, so that a repeated request makes no more of them."""
        key, caller = _idempotency_key(request), _caller(request)

        def change(run_id: UUID) -> None:
            if body["action"] == "cancel":
                lifecycle.cancel_run(run_id=run_id, actor=caller["actor"])
                return
            own_key = key and sha256(f"{key} {run_id}".encode()).hexdigest()
            rerun_run(run_id=run_id, key=own_key, **caller)

        rows = Run.objects.filter(environment_id=environment_id)
        return done_to_each(rows, body["ids"], change)

    @Operation(
        "GET /environments/{environmentId}/runs",
        id="listRuns",
        summary="List an environment's runs",
        items=RunSerializer,
        filters=EnvironmentRunFilters,
        counts=tuple(Status.values),
    )
    @from_replica
    def list(self, request: Request, environment_id: UUID) -> Response:
        filters = EnvironmentRunFilters.read_for(environment_id, request)
        response = _run_page(filters, request, self)
        if "counts" in filters.values["include"]:
            response.data["counts"] = queries.counts_of(environment_id)
        return response


class RunViewSet(TenantViewSet):
    row = tenancy.ALL_RUNS
    tag = "Runs"
    permissions = {
        "retrieve": IsViewer,
        "tool_calls": IsViewer,
        "cancel": IsOperator,
        "rerun": IsOperator,
    }
    # A rerun does not count against the caller's write rate, because the ceiling of the queue bounds it.
    unmetered = frozenset({"rerun"})

    @Operation(
        "GET /runs/{runId}",
        id="getRun",
        summary="Get a run",
        answers={200: RunDetailSerializer},
    )
    def retrieve(self, request: Request, run_id: UUID) -> Any:
        run = queries.run_in_full(run_id)
        if run["event_id"] and not self.access.role.includes(Role.OPERATOR):
            # A rerun and a retry of the run have its event and its payload.
            run |= {"payload": None, "payload_hidden": run["payload"] is not None}
        return run

    @Operation(
        "GET /runs/{runId}/tool-calls",
        id="listToolCalls",
        summary="List a run's tool calls",
        answers={
            200: answer(
                "ToolCallList",
                "The first tool calls of a run, and how many it made in all.",
                items=ToolCallSerializer(many=True),
                total=serializers.IntegerField(allow_null=True),
            )
        },
    )
    def tool_calls(self, request: Request, run_id: UUID) -> Any:
        return queries.tool_calls_of(run_id)

    @Operation(
        "POST /runs/{runId}/cancel",
        id="cancelRun",
        summary="Cancel a run",
        answers={200: RunDetailSerializer},
    )
    def cancel(self, request: Request, run_id: UUID) -> Any:
        lifecycle.cancel_run(run_id=run_id, actor=actor_of(request))
        return queries.run_in_full(run_id)

    @Operation(
        "POST /runs/{runId}/rerun",
        id="rerunRun",
        summary="Run a run's payload again",
        body=RerunBody,
        parameters=(_KEY_HEADER,),
        answers={201: RunDetailSerializer, 200: RunDetailSerializer},
        answer_headers={200: ("Idempotent-Replayed",)},
    )
    def rerun(self, request: Request, run_id: UUID) -> Response:
        key = _idempotency_key(request)
        body = read_body(RerunBody, request)
        return _answer(rerun_run(run_id=run_id, key=key, **body, **_caller(request)))


def _answer(queued: Queued) -> Response:
    shown = RunDetailSerializer(queued.run).data
    if queued.replayed:
        return Response(shown, headers={"Idempotent-Replayed": "true"})
    return Response(shown, status=201)


def _caller(request: Request) -> dict[str, Any]:
    """Returns what a service that queues a run needs to know of the caller. `watched` is true if a person asks, who
    will look at the run: in a browser, or with the command line's login.
    """
    principal = principal_of(request)
    is_key = isinstance(principal, KeyPrincipal)
    return {
        "caller_id": principal.id,
        "source": Source.API if is_key else Source.MANUAL,
        "watched": not isinstance(principal, KeyPrincipal) or principal.is_login,
        "actor": actor_of(request),
    }


def _run_page(filters: RunFilters, request: Request, view: TenantViewSet) -> Response:
    is_by_end = filters.time_field == EndedRunPaginator.time_field
    paginator = EndedRunPaginator if is_by_end else RunPaginator
    parts = filters.parts
    is_whole = len(parts) == 1
    # A statement of up to 39 parts is planned in much less time if the parts join no other tables.
    rows = (
        [queries.runs(parts[0])]
        if is_whole
        else [part.values("id", paginator.time_field) for part in parts]
    )

    def shown(page: list[Any]) -> Any:
        runs = page if is_whole else queries.runs_in_order([row["id"] for row in page])
        return RunSerializer(runs, many=True).data

    return view.page_shown(request, rows, shown, paginator=paginator)


def _idempotency_key(request: Request) -> str | None:
    """Returns the header `Idempotency-Key`, or None if it was not sent. Raises Invalid if it is malformed."""
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY_PATTERN.fullmatch(key):
        raise Invalid({"Idempotency-Key": ["Must be 1 to 255 printable characters."]})
    return key
