"""Renders revisions of triggers for the API."""

from typing import Any

from rest_framework import serializers

from pipedai.api.serializers import RowSerializer
from triggers.models import TriggerRevision
from workspaces.actors import ActorSerializer, actors_shown


class RevisionSerializer(RowSerializer):
    """A prompt, model and output schema that a trigger has or had, and who made them."""

    id = serializers.UUIDField()
    createdAt = serializers.DateTimeField(source="created_at")
    createdBy = ActorSerializer(source="created_by", allow_null=True)
    prompt = serializers.CharField()
    model = serializers.CharField(allow_null=True)
    outputSchema = serializers.JSONField(source="output_schema", allow_null=True)


def revisions_shown(rows: list[TriggerRevision]) -> Any:
    """Returns revisions as the API shows them. It takes the queries of `actors_shown`."""
    makers = actors_shown(
        (row.created_by_type, row.created_by_id) for row in rows if row.created_by_type
    )
    shown = [
        {**vars(row), "created_by": makers.get((row.created_by_type, row.created_by_id))}
        for row in rows
    ]
    return RevisionSerializer(shown, many=True).data
