"""Reads the bodies of the host endpoints, and describes their answers."""

from typing import Any

from rest_framework import serializers

from pipedai.api.fields import NameField
from pipedai.api.serializers import Body


class RegistrationTokenBody(Body):
    """POST /workspaces/:wsId/workers/registration-token."""

    label = NameField(max_length=200, required=False, allow_null=True, default=None)  # type: ignore[assignment]


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
