"""Renders audit entries with the names that their actors have now, and filters their list (SPEC §5, §9)."""

from typing import Any, get_args
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.models import User
from audit.models import AuditEntry
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from pipedai.api.serializers import RowSerializer
from pipedai.events import ACTIONS, ActorType
from workers.models import Worker
from workspaces.models import ApiKey

ACTOR_TYPES = get_args(ActorType)
# For each type of actor, the model of its rows and the column that has the name to show. The log stores ids only, so a
# user who was erased has no name.
LABELS: dict[str, tuple[Any, str]] = {
    "user": (User, "email"),
    "staff": (User, "email"),
    "api_key": (ApiKey, "name"),
    "worker": (Worker, "label"),
}


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


def with_actors(entries: list[AuditEntry]) -> list[dict[str, Any]]:
    """Returns the entries as dicts for AuditEntrySerializer. It takes one query for each type of actor among them."""
    labels: dict[tuple[str, UUID | None], str] = {("system", None): "system"}
    for actor_type, (model, column) in LABELS.items():
        ids = {entry.actor_id for entry in entries if entry.actor_type == actor_type}
        if ids - {None}:
            found = model.objects.filter(id__in=ids - {None}).values_list("id", column)
            labels |= {(actor_type, row_id): label for row_id, label in found}
    return [
        {
            **vars(entry),
            "actor": {
                "type": entry.actor_type,
                "id": entry.actor_id,
                "label": labels.get((entry.actor_type, entry.actor_id)),
            },
        }
        for entry in entries
    ]


class AuditFilters(ApiFilterSet):
    """The filters `?action=&actions=a,b&targetId=&from=&to=`, where `from` ≤ `createdAt` < `to`."""

    action = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    actions = WordsFilter(field_name="action", choices=sorted(ACTIONS))
    targetId = IdFilter(field_name="target_id")
    to = EndFilter(field_name="created_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="created_at", lookup_expr="gte")
