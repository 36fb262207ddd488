"""Renders audit entries."""

from typing import get_args

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.serializers import RowSerializer
from pipedai.events import ActorType

ACTOR_TYPES = get_args(ActorType)


class ActorSerializer(RowSerializer):
    """Who did the action of an audit entry."""

    type = serializers.ChoiceField(choices=ACTOR_TYPES)
    id = serializers.UUIDField(allow_null=True)
    label = serializers.CharField(allow_null=True)  # type: ignore[assignment]


@extend_schema_field({"type": "object", "additionalProperties": True})
class MetadataField(serializers.JSONField):
    """What an action changed, by the names that API.md lists for each action."""


class AuditEntrySerializer(RowSerializer):
    """An audit entry: one action on one row."""

    id = serializers.UUIDField()
    action = serializers.CharField()
    actor = ActorSerializer()
    targetType = serializers.CharField(source="target_type")
    targetId = serializers.UUIDField(source="target_id", allow_null=True)
    metadata = MetadataField()
    ip = serializers.CharField(allow_null=True)
    requestId = serializers.CharField(source="request_id", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
