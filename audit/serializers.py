"""An audit entry as it goes out."""

from typing import Any

from rest_framework import serializers


class ActorSerializer(serializers.Serializer[Any]):
    """Who did it."""

    type = serializers.CharField()
    id = serializers.UUIDField()
    label = serializers.CharField()  # type: ignore[assignment]


class AuditEntrySerializer(serializers.Serializer[Any]):
    """One action on one target."""

    id = serializers.UUIDField()
    action = serializers.CharField()
    actor = ActorSerializer()
    targetType = serializers.CharField(source="target_type")
    targetId = serializers.UUIDField(source="target_id")
    metadata = serializers.JSONField()
    ip = serializers.CharField()
    requestId = serializers.CharField(source="request_id")
    createdAt = serializers.DateTimeField(source="created_at")
