"""Describes, for the OpenAPI schema, the endpoints by which hosts enroll and manage their workers."""

from typing import Any

from rest_framework import serializers

from pipedai.api.schema.operation import Operation, describe
from pipedai.api.schema.parameters import header
from pipedai.api.serializers import Body
from workers.enrollment.serializers import (
    EnrollmentBody,
    EnrollmentSerializer,
    PairingBody,
    RedeemBody,
)
from workers.enrollment.views import EnrollmentViewSet, EnvironmentEnrollmentViewSet
from workers.event_views import WorkerEventViewSet
from workers.filters import WorkerFilters
from workers.host_views import ReleaseViewSet, WorkspaceWorkerViewSet
from workers.models import Worker
from workers.serializers import RegistrationTokenBody, WorkerSerializer

_CONFLICT = frozenset({409})


class IssuedEnrollmentSerializer(EnrollmentSerializer):
    """A new enrollment with its code, which is shown this once."""

    code = serializers.CharField()


class PairingSerializer(serializers.Serializer[Any]):
    """A pairing that waits for somebody's approval."""

    id = serializers.UUIDField()
    deviceCode = serializers.CharField()
    userCode = serializers.CharField()
    verificationUri = serializers.CharField()
    verificationUriComplete = serializers.CharField()
    interval = serializers.IntegerField()
    expiresAt = serializers.DateTimeField()


class RedeemedSerializer(serializers.Serializer[Any]):
    """A host's worker and its two tokens, which are shown this once."""

    workerId = serializers.UUIDField()
    workerToken = serializers.CharField()
    operatorToken = serializers.CharField()
    apiUrl = serializers.CharField()
    workspaceId = serializers.UUIDField()
    environmentId = serializers.UUIDField()
    authMode = serializers.ChoiceField(choices=Worker.AuthMode.choices)


class RegistrationTokenSerializer(serializers.Serializer[Any]):
    """A registration token, which is shown this once."""

    id = serializers.UUIDField()
    token = serializers.CharField()
    lastFour = serializers.CharField()
    expiresAt = serializers.DateTimeField()


class ReleaseSerializer(serializers.Serializer[Any]):
    """The newest version of a program, and who says so."""

    latest = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]


class ReleasesSerializer(serializers.Serializer[Any]):
    """The newest versions of what runs on hosts."""

    pipedaiWorker = ReleaseSerializer()
    pipedaiOrchestrator = ReleaseSerializer()


class WorkerEventSerializer(serializers.Serializer[Any]):
    """An event of a worker: the `data` of a server-sent event."""

    type = serializers.CharField()
    ts = serializers.DateTimeField()
    workerId = serializers.UUIDField()
    runId = serializers.UUIDField(required=False)
    triggerId = serializers.UUIDField(required=False)
    status = serializers.CharField(required=False)
    maxConcurrency = serializers.IntegerField(required=False)


_MACHINE = {"hostname": "build-2", "os": "linux", "version": "0.1.0"}

describe(
    EnvironmentEnrollmentViewSet,
    "Hosts",
    list=Operation(id="listEnrollments", summary="List enrollments", items=EnrollmentSerializer),
    create=Operation(
        id="createEnrollment",
        summary="Issue an enrollment code",
        body=EnrollmentBody,
        example={"label": "build-2"},
        answers={201: IssuedEnrollmentSerializer},
        errors=_CONFLICT,
        audit=("enrollment.created",),
    ),
    destroy=Operation(
        id="revokeEnrollment",
        summary="Revoke an enrollment",
        answers={204: None},
        errors=_CONFLICT,
        audit=("enrollment.revoked",),
    ),
)
describe(
    EnrollmentViewSet,
    "Hosts",
    device=Operation(
        id="beginPairing",
        summary="Begin a pairing",
        body=PairingBody,
        example={"label": "build-2"},
        answers={201: PairingSerializer},
        audit=("enrollment.approved", "enrollment.denied"),
    ),
    redeem=Operation(
        id="redeemEnrollment",
        summary="Redeem an enrollment",
        body=RedeemBody,
        example={"code": "enr_…", **_MACHINE},
        answers={201: RedeemedSerializer},
        errors=frozenset({403, 404, 409, 410}),
        audit=("enrollment.redeemed",),
    ),
)
describe(
    WorkspaceWorkerViewSet,
    "Hosts",
    list=Operation(
        id="listHostWorkers",
        summary="List the workers of the key's environment",
        items=WorkerSerializer,
        filters=WorkerFilters,
    ),
    disable=Operation(
        id="disableHostWorker",
        summary="Disable a worker",
        body=Body,
        answers={200: WorkerSerializer},
        audit=("worker.updated",),
    ),
    enable=Operation(
        id="enableHostWorker",
        summary="Enable a worker",
        body=Body,
        answers={200: WorkerSerializer},
        audit=("worker.updated",),
    ),
    destroy=Operation(
        id="deregisterHostWorker",
        summary="Deregister a worker of a host",
        answers={204: None},
        errors=_CONFLICT,
        audit=("worker.deregistered",),
    ),
    mint_token=Operation(
        id="mintRegistrationToken",
        summary="Mint a registration token",
        body=RegistrationTokenBody,
        example={"label": "build-2"},
        answers={201: RegistrationTokenSerializer},
        errors=_CONFLICT,
        audit=("api-key.created",),
    ),
)
describe(
    WorkerEventViewSet,
    "Hosts",
    stream=Operation(
        id="streamWorkerEvents",
        summary="Stream a worker's events",
        parameters=(
            header(
                "Last-Event-ID",
                {"type": "string"},
                description="The id of the last event that was read.",
            ),
        ),
        answers={200: WorkerEventSerializer},
        media_type="text/event-stream",
    ),
)
describe(
    ReleaseViewSet,
    "Hosts",
    retrieve=Operation(
        id="getLatestReleases",
        summary="Get the newest versions of what runs on hosts",
        answers={200: ReleasesSerializer},
    ),
)
