"""The endpoints by which a worker claims a run and reports on it: a thin adapter over `triggers.runs`."""

from typing import Any
from uuid import UUID

from django.db import transaction
from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.parsers import OutcomeJSONParser
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import Body, Values, serializer_of
from pipedai.api.throttling import Rate, Throttle, by_caller
from pipedai.api.views import IsSignedIn
from triggers.approvals.services import spend_approval
from triggers.runs import lifecycle, reports
from triggers.runs.headers import RunCredentials, renew_credentials
from triggers.runs.lifecycle import CREDENTIALS_SECONDS, NotReady
from triggers.runs.serializers import RunSerializer
from triggers.states import RecordEvents, Status
from workers.authentication import VERSION, WorkerProtocolViewSet, locked_limits
from workers.protocol.serializers import (
    ClaimBody,
    ClaimedRunSerializer,
    CompleteBody,
    CompletedRunSerializer,
    CredentialsBody,
    HeartbeatBody,
    as_reported,
    outcome_of,
)
from workspaces.connections.refreshing import want_refresh

# A run's credentials may be requested once in five seconds.
_CREDENTIALS = Rate("run-credentials", 1, CREDENTIALS_SECONDS, in_a_row=True)


def _by_run(request: Request) -> str:
    return f"{by_caller(request)} {request.parser_context['kwargs']['run_id']}"


class WorkerRunViewSet(WorkerProtocolViewSet):
    """The endpoints by which a worker takes a run and says that it executes it."""

    permissions = dict.fromkeys(("claim", "start", "heartbeat", "credentials", "spend"), IsSignedIn)
    # These calls have no rate limit, because a worker must call as often as its runs need.
    unmetered = frozenset(permissions)
    throttles = {"credentials": (Throttle(_CREDENTIALS, _by_run),)}

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/claim",
        id="claimRun",
        summary="Claim a run",
        body=ClaimBody,
        example={"claimId": "01a20e61-d1c1-7d52-9c1e-0f5a8ad3a1b2"},
        parameters=(VERSION,),
        answers={200: ClaimedRunSerializer},
    )
    def claim(self, request: Request, worker_id: UUID, run_id: UUID, body: Values) -> Any:
        features = body.pop("features")
        try:
            with transaction.atomic():
                return lifecycle.claim_run(
                    worker_id=worker_id,
                    run_id=run_id,
                    **body,
                    **locked_limits(self.worker, features=features),
                    actor=self._actor(request),
                )
        except NotReady as refused:
            want_refresh([refused.connection_id])
            raise

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/start",
        id="startRun",
        summary="Start a run",
        body=Body,
        parameters=(VERSION,),
        answers={200: RunSerializer},
    )
    def start(self, request: Request, worker_id: UUID, run_id: UUID, body: Values) -> Any:
        actor = self._actor(request)
        return lifecycle.start_run(worker_id=worker_id, run_id=run_id, actor=actor)

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/heartbeat",
        id="heartbeatRun",
        summary="Renew a run's lease",
        body=HeartbeatBody,
        example={"toolCalls": {"total": 3, "effects": 1, "unknown": 0}},
        parameters=(VERSION,),
        answers={
            200: answer(
                "Heartbeat",
                "What a worker learns of its run.",
                status=serializers.ChoiceField(choices=Status.choices),
                cancelRequested=serializers.BooleanField(),
                leaseExpiresAt=serializers.DateTimeField(),
                recordEvents=serializers.ChoiceField(choices=RecordEvents.choices),
            )
        },
    )
    def heartbeat(self, request: Request, worker_id: UUID, run_id: UUID, body: Values) -> Any:
        beat = lifecycle.heartbeat_run(worker_id=worker_id, run_id=run_id, **body)
        return {
            "status": beat["status"],
            "cancelRequested": beat["cancel_requested_at"] is not None,
            "leaseExpiresAt": beat["lease_expires_at"],
            "recordEvents": beat["record_events"],
        }

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/credentials",
        id="renewRunCredentials",
        summary="Get a run's MCP headers anew",
        body=CredentialsBody,
        parameters=(VERSION,),
        answers={200: serializer_of(RunCredentials)},
    )
    def credentials(self, request: Request, worker_id: UUID, run_id: UUID, body: Values) -> Any:
        return renew_credentials(
            worker_id=worker_id,
            run_id=run_id,
            **body,
            approved=self.worker.approved,
            actor=self._actor(request),
        )

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/approvals/{approvalId}/spend",
        id="spendApproval",
        summary="Use an approval",
        body=Body,
        parameters=(VERSION,),
        answers={
            200: answer(
                "SpentApproval",
                "An approval that the worker's gateway may use now.",
                approvalId=serializers.UUIDField(),
                spentAt=serializers.DateTimeField(),
            )
        },
    )
    def spend(
        self, request: Request, worker_id: UUID, run_id: UUID, approval_id: UUID, body: Values
    ) -> Any:
        actor = self._actor(request)
        spent = spend_approval(
            worker_id=worker_id, run_id=run_id, approval_id=approval_id, actor=actor
        )
        return {"approvalId": spent["id"], "spentAt": spent["spent_at"]}


class RunEndViewSet(WorkerProtocolViewSet):
    permissions = {"complete": IsSignedIn}
    unmetered = frozenset(permissions)
    # Text in a run's outcome can hold characters that PostgreSQL can't store. This parser replaces them, so that the
    # worker's report of the outcome is stored and not refused.
    parser_classes = (OutcomeJSONParser,)

    @Operation(
        "POST /workers/{workerId}/runs/{runId}/complete",
        id="completeRun",
        summary="Report a run's end",
        body=CompleteBody,
        example={"status": "succeeded", "exitCode": 0, "costUsd": "0.012"},
        parameters=(VERSION,),
        answers={200: CompletedRunSerializer},
    )
    def complete(self, request: Request, worker_id: UUID, run_id: UUID, body: Values) -> Any:
        outcome = outcome_of(body)
        run = reports.complete_run(
            worker_id=worker_id,
            run_id=run_id,
            outcome=outcome,
            reported=as_reported(body),
            actor=self._actor(request),
        )
        return {**run, "warnings": outcome.dropped(run)}
