"""Checks the body of a schedule preview, and renders previews and ticks for the API."""

from typing import Any

from rest_framework import serializers

from pipedai.api.fields import TextField, TimezoneField, WholeNumberField
from pipedai.api.serializers import NamedSerializer, StrictBody
from triggers.serializers import TriggerBody
from triggers.states import Decision


class SchedulePreviewBody(StrictBody):
    schedule = TextField(max_length=200, allow_null=True, default=None)
    timezone = TimezoneField(default="UTC")
    runOnceAt = serializers.DateTimeField(allow_null=True, default=None)
    count = WholeNumberField(min_value=1, max_value=100, default=10)

    validate_schedule = TriggerBody.validate_schedule
    validate_runOnceAt = TriggerBody.validate_runOnceAt

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["schedule"] is None and attrs["run_once_at"] is None:
            raise serializers.ValidationError(
                {"schedule": ["This field is required without a runOnceAt."]}
            )
        return attrs


class ComingTimeSerializer(serializers.Serializer[Any]):
    """One coming due time of a preview."""

    at = serializers.DateTimeField()
    note = serializers.CharField(allow_null=True)


class TickSerializer(NamedSerializer):
    """A due time of a trigger's schedule (tick), and what was decided about it."""

    tickAt = serializers.DateTimeField()
    decision = serializers.ChoiceField(choices=Decision.choices)
    runId = serializers.UUIDField(allow_null=True)
    blockedByRunId = serializers.UUIDField(source="blocked_by_id", allow_null=True)
    missedCount = serializers.IntegerField()
    decidedAt = serializers.DateTimeField()
