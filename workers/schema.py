"""Describes the worker endpoints and the worker protocol for the OpenAPI schema."""

from typing import Any

from rest_framework import serializers

from pipedai.api.schema.operation import Operation, describe
from pipedai.api.schema.parameters import header, query
from pipedai.api.schema.security import registration_token
from pipedai.api.serializers import Body
from triggers.serializers import RunSerializer
from triggers.states import Status
from workers import host_schema  # noqa: F401 - importing it describes the hosts' endpoints
from workers.filters import WorkerFilters
from workers.models import Worker
from workers.serializers import (
    ClaimBody,
    CompleteBody,
    HandedOutRunSerializer,
    HeartbeatBody,
    RegisterBody,
    WorkerBody,
    WorkerSerializer,
)
from workers.views import (
    MAX_WAIT_SECONDS,
    EnvironmentWorkerViewSet,
    OverviewViewSet,
    RegistrationViewSet,
    WorkerApprovalViewSet,
    WorkerProtocolViewSet,
    WorkerViewSet,
)

_VERSION = header(
    "X-Pipedai-Worker-Version",
    {"type": "string", "pattern": r"^[\w.+-]{1,64}$"},
    description="The worker's version, where it is kept; anything else is ignored.",
)


class RegistrationBody(RegisterBody):
    """With the token, which the view takes from the body or the header before it looks at the rest."""

    token = serializers.CharField(required=False)


class RegisteredSerializer(serializers.Serializer[Any]):
    """A registered worker and its token, which is shown this once."""

    workerId = serializers.UUIDField()
    workerToken = serializers.CharField()
    workspaceId = serializers.UUIDField()
    environmentId = serializers.UUIDField()
    approved = serializers.BooleanField()
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)


class PollSerializer(serializers.Serializer[Any]):
    """The runs that a worker is to claim."""

    runs = HandedOutRunSerializer(many=True)
    serverTime = serializers.DateTimeField()
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)


class HeartbeatSerializer(serializers.Serializer[Any]):
    """What a worker learns of its run."""

    status = serializers.ChoiceField(choices=Status.choices)
    cancelRequested = serializers.BooleanField()
    leaseExpiresAt = serializers.DateTimeField()


class OverviewSerializer(serializers.Serializer[Any]):
    """The figures of a dashboard."""

    onlineWorkers = serializers.IntegerField()
    todaysRuns = serializers.IntegerField()
    successRatePct = serializers.FloatField(allow_null=True)
    monthTokenSpendUsd = serializers.FloatField()


describe(
    RegistrationViewSet,
    "Worker protocol",
    register=Operation(
        id="registerWorker",
        summary="Register a worker",
        body=RegistrationBody,
        example={"token": "wrk_…", "hostname": "build-1", "os": "Linux 6.1", "version": "0.1.0"},
        answers={201: RegisteredSerializer},
        says={
            201: (
                "`approved` is false for a worker that waits for an admin's approval; no other "
                "answer ever holds the `wkt_` token."
            ),
        },
        errors={
            401: (
                "The token is missing, malformed, used, expired or revoked, or whoever minted it was "
                "deactivated; of two registrations that race with one token, one gets this."
            ),
            409: "A ceiling.",
        },
        audit=("worker.registered",),
        security=({}, registration_token()),
    ),
)
describe(
    EnvironmentWorkerViewSet,
    "Workers",
    list=Operation(
        id="listWorkers",
        summary="List workers",
        items=WorkerSerializer,
        filters=WorkerFilters,
        says={200: "A list of workers."},
    ),
)
describe(
    WorkerViewSet,
    "Workers",
    retrieve=Operation(
        id="getWorker",
        summary="Get a worker",
        answers={200: WorkerSerializer},
        says={200: "With the worker."},
    ),
    update=Operation(
        id="updateWorker",
        summary="Change a worker",
        body=WorkerBody,
        partial=True,
        example={"maxConcurrency": 2},
        answers={200: WorkerSerializer},
        says={200: "With the worker; what is as it was changes nothing."},
        audit=("worker.updated",),
    ),
    destroy=Operation(
        id="deregisterWorker",
        summary="Deregister a worker",
        parameters=(
            query(
                "reassignTo",
                {"type": "string", "format": "uuid"},
                description="The worker that takes over its triggers and queued runs.",
            ),
        ),
        answers={204: None},
        errors={
            400: "A bad `reassignTo`.",
            409: "Without `reassignTo`, while triggers point at it or runs are unfinished.",
        },
        audit=("worker.deregistered",),
    ),
    revoke_token=Operation(
        id="revokeWorkerToken",
        summary="Revoke a worker's token",
        answers={204: None},
        says={204: "Also when there is no token any more."},
        audit=("worker.token-revoked",),
    ),
)
describe(
    WorkerApprovalViewSet,
    "Workers",
    approve=Operation(
        id="approveWorker",
        summary="Approve a worker",
        answers={200: WorkerSerializer},
        says={200: "With the worker, also when it was approved before."},
        audit=("worker.approved",),
    ),
)
describe(
    OverviewViewSet,
    "Overview",
    retrieve=Operation(
        id="getOverview",
        summary="Get the figures of a dashboard",
        parameters=(
            query(
                "timezone",
                {"type": "string", "maxLength": 64, "default": "UTC"},
                description="The IANA name of the zone in which the day and the month begin.",
            ),
        ),
        answers={200: OverviewSerializer},
        errors={400: "A bad `timezone`."},
    ),
)
describe(
    WorkerProtocolViewSet,
    "Worker protocol",
    poll=Operation(
        id="pollRuns",
        summary="Poll for runs",
        parameters=(
            query(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": 0},
                description="Seconds to wait for a run.",
            ),
            _VERSION,
        ),
        answers={200: PollSerializer},
        says={
            200: (
                "With the runs to claim; with none when `wait` is over, after which the worker "
                "simply polls again."
            ),
        },
        errors={
            400: "A bad `wait`.",
            429: (
                "Two polls that do not wait are under way already; with the `code` `throttled` and "
                "`Retry-After`."
            ),
        },
        audit=("run.handed-out",),
    ),
    claim=Operation(
        id="claimRun",
        summary="Claim a run",
        body=ClaimBody,
        example={"claimId": "01a20e61-d1c1-7d52-9c1e-0f5a8ad3a1b2"},
        parameters=(_VERSION,),
        answers={200: RunSerializer},
        says={200: "With the run."},
        errors={
            409: (
                "Not queued, claimed with another `claimId`, not due yet, the worker holds "
                "`maxConcurrency` runs, it is disabled, or it waits for approval and the run's "
                "trigger has MCP headers (`code` `worker_unapproved`)."
            ),
        },
        audit=("run.claimed",),
    ),
    start=Operation(
        id="startRun",
        summary="Start a run",
        body=Body,
        parameters=(_VERSION,),
        answers={200: RunSerializer},
        errors={409: "Neither claimed nor running."},
        audit=("run.started",),
    ),
    heartbeat=Operation(
        id="heartbeatRun",
        summary="Renew a run's lease",
        body=HeartbeatBody,
        example={"toolCalls": {"total": 3, "effects": 1, "unknown": 0}},
        parameters=(_VERSION,),
        answers={200: HeartbeatSerializer},
        errors={409: "The run is no longer this worker's to run: it must stop."},
    ),
    complete=Operation(
        id="completeRun",
        summary="Report a run's end",
        body=CompleteBody,
        example={"status": "succeeded", "exitCode": 0, "costUsd": "0.012"},
        parameters=(_VERSION,),
        answers={200: RunSerializer},
        errors={
            409: (
                "The run is queued, it was ended by somebody else or with another status, no cancel "
                "was requested, or the report is too late."
            ),
        },
        audit=("run.completed", "run.canceled", "run.retried"),
    ),
)
