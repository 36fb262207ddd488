"""Renders audit entries with the names that their actors have now, and filters their list."""

from typing import Any, get_args

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from audit.models import AuditEntry
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.api.serializers import RowSerializer
from pipedai.events import ACTIONS, ActorType
from workspaces.serializers import ActorSerializer, actors_shown


@extend_schema_field({"type": "object", "additionalProperties": True})
class MetadataField(serializers.JSONField):
    """What an action changed, by the names that API.md lists for each action."""


class AuditEntrySerializer(RowSerializer):
    """An audit entry: one action on one row."""

    id = serializers.UUIDField()
    action = serializers.CharField()
    actor = ActorSerializer()
    targetType = serializers.CharField()
    targetId = serializers.UUIDField(allow_null=True)
    targetName = serializers.CharField(allow_null=True)
    metadata = MetadataField()
    ip = serializers.CharField(allow_null=True)
    requestId = serializers.CharField(allow_null=True)
    createdAt = serializers.DateTimeField()


def with_actors(entries: list[AuditEntry]) -> list[dict[str, Any]]:
    """Returns the entries as dicts for AuditEntrySerializer. It runs the queries of `actors_shown`."""
    actors = actors_shown((entry.actor_type, entry.actor_id) for entry in entries)
    return [{**vars(entry), "actor": actors[entry.actor_type, entry.actor_id]} for entry in entries]


class AuditFilters(ApiFilterSet):
    """The filters `?action=&actions=a,b&actorType=&actorId=&targetId=&from=&to=`, where `from` ≤ `createdAt` < `to`."""

    action = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    actions = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    actorType = WordsFilter(field_name="actor_type", choices=get_args(ActorType))
    actorId = IdFilter(field_name="actor_id")
    targetId = IdFilter(field_name="target_id")
    to = EndFilter(field_name="created_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="created_at", lookup_expr="gte")
