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
    list=Operation(
        id="listEnrollments",
        summary="List enrollments",
        items=EnrollmentSerializer,
        says={
            200: (
                "A list of enrollments: the codes, and the pairings that were approved for this "
                "environment."
            ),
        },
    ),
    create=Operation(
        id="createEnrollment",
        summary="Issue an enrollment code",
        body=EnrollmentBody,
        example={"label": "build-2"},
        answers={201: IssuedEnrollmentSerializer},
        says={201: "With the enrollment and, this once, its `code` (`enr_…`), good for one host."},
        errors={409: "A ceiling."},
        audit=("enrollment.created",),
    ),
    destroy=Operation(
        id="revokeEnrollment",
        summary="Revoke an enrollment",
        answers={204: None},
        says={204: "Also when it is revoked already."},
        errors={409: "It has been redeemed: revoke the host's key instead."},
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
        says={
            201: (
                "No other answer ever holds these tokens, so one that is lost is lost: enrol again."
            ),
        },
        errors={
            400: (
                "A pairing is not approved yet (`error` is `authorization_pending`), or was asked "
                "for too soon (`slow_down`: wait 5 s longer from now on, at most 60); or the body is "
                "wrong."
            ),
            403: "Denied or revoked, or whoever let it in is no admin any more.",
            404: "No such code.",
            409: "Redeemed already, or a ceiling.",
            410: "Expired.",
        },
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
        says={200: "A list of the workers of the key's environment."},
        errors={404: "Not the workspace of the key's environment."},
    ),
    disable=Operation(
        id="disableHostWorker",
        summary="Disable a worker",
        body=Body,
        answers={200: WorkerSerializer},
        says={200: "With the worker, which may finish what it holds and gets nothing new."},
        audit=("worker.updated",),
    ),
    enable=Operation(
        id="enableHostWorker",
        summary="Enable a worker",
        body=Body,
        answers={200: WorkerSerializer},
        says={200: "With the worker."},
        audit=("worker.updated",),
    ),
    destroy=Operation(
        id="deregisterHostWorker",
        summary="Deregister a worker of a host",
        answers={204: None},
        errors={409: "While triggers point at it or runs are unfinished."},
        audit=("worker.deregistered",),
    ),
    mint_token=Operation(
        id="mintRegistrationToken",
        summary="Mint a registration token",
        body=RegistrationTokenBody,
        example={"label": "build-2"},
        answers={201: RegistrationTokenSerializer},
        says={
            201: (
                "With a token that registers one new worker within 15 minutes; it dies with the key "
                "that minted it."
            ),
        },
        errors={409: "A ceiling."},
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
