"""Renders revisions of triggers for the API."""

from typing import Any

from rest_framework import serializers

from pipedai.api.serializers import RowSerializer
from triggers.models import TriggerRevision
from workspaces.serializers import ActorSerializer, actors_shown


class RevisionSerializer(RowSerializer):
    """A prompt, model and output schema that a trigger has or had, and who made them."""

    id = serializers.UUIDField()
    createdAt = serializers.DateTimeField()
    createdBy = ActorSerializer(allow_null=True)
    prompt = serializers.CharField()
    model = serializers.CharField(allow_null=True)
    outputSchema = serializers.JSONField(allow_null=True)


def revisions_shown(rows: list[TriggerRevision]) -> Any:
    """Returns revisions as the API shows them. It takes the queries of `actors_shown`."""
    makers = [(row.created_by_type, row.created_by_id) for row in rows]
    named = actors_shown((kind, actor_id) for kind, actor_id in makers if kind)
    shown = [
        {**vars(row), "created_by": named[kind, actor_id] if kind else None}
        for row, (kind, actor_id) in zip(rows, makers, strict=True)
    ]
    return RevisionSerializer(shown, many=True).data
