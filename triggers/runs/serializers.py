"""Checks the body that runs a trigger, and renders runs for the API."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.bulk import BulkBody
from pipedai.api.declared import Declaring
from pipedai.api.fields import TrueFalseField
from pipedai.api.renderers import compact_json
from pipedai.api.serializers import RowSerializer, StrictBody, serializer_of
from triggers.models import Run, RunResult, RunText, TriggerRevision
from triggers.models.run import PHASES, duration_ms, phases, tool_calls
from triggers.runs.outcome import CALL_EFFECTS, CALL_OUTCOMES, Denials, ToolCalls

MAX_PAYLOAD_BYTES = 64 * 1024


class RunBody(StrictBody):
    payload = serializers.JSONField(allow_null=True, default=None)
    force = TrueFalseField(default=False)
    lookOnly = TrueFalseField(default=False)

    def validate_payload(self, value: Any) -> Any:
        if len(compact_json(value).encode()) > MAX_PAYLOAD_BYTES:
            raise serializers.ValidationError("Must not be longer than 64 KiB.")
        return value


class BulkRunsBody(BulkBody):
    action = serializers.ChoiceField(choices=["rerun", "cancel"])


class RerunBody(StrictBody):
    """The body of POST /runs/:id/rerun. The payload is that of the run."""

    force = TrueFalseField(default=False)


class RunSerializer(RowSerializer):
    """A run with the fields that lists of runs show."""

    of: ClassVar[Declaring] = (Run, RunText, RunResult, TriggerRevision)
    shows = (
        "id triggerId triggerRevisionId triggerName environmentId workerId poolId status source"
        " attempt retryOfRunId rerunOfRunId eventId scheduledFor availableAt startDeadlineAt"
        " queuedAt claimedAt startedAt endedAt durationMs exitCode shortMessage errorMessage"
        " faultClass willRetry nothingNew model inputTokens outputTokens cacheReadTokens"
        " cacheCreationTokens costUsd numTurns sessionId cancelRequested"
    )
    triggerRevisionId = serializers.UUIDField(source="revision_id")
    triggerName = serializers.CharField()
    retryOfRunId = serializers.UUIDField(source="retry_of_id", allow_null=True)
    rerunOfRunId = serializers.UUIDField(source="rerun_of_id", allow_null=True)
    durationMs = serializers.SerializerMethodField()
    willRetry = serializers.BooleanField(allow_null=True)
    cancelRequested = serializers.SerializerMethodField()

    def get_durationMs(self, run: dict[str, Any]) -> int | None:  # noqa: N802
        """How many milliseconds the run took, from its start to its end."""
        return duration_ms(run)

    def get_cancelRequested(self, run: dict[str, Any]) -> bool:  # noqa: N802
        """Whether somebody asked to cancel the run."""
        return run["cancel_requested_at"] is not None


@extend_schema_field(
    {
        "type": "object",
        "description": "What a worker reported too late, as it reported it.",
        "required": ["receivedAt", "status"],
        "properties": {
            "receivedAt": {"type": "string", "format": "date-time"},
            "status": {"type": "string"},
        },
        "additionalProperties": True,
    }
)
class LateResultField(serializers.JSONField):
    """A worker's report about a run that came too late to count."""


class RunPhaseSerializer(serializers.Serializer[Any]):
    """A phase of a run. Its end is null while it lasts."""

    phase = serializers.ChoiceField(choices=PHASES)
    vars()["from"] = serializers.DateTimeField()
    to = serializers.DateTimeField(allow_null=True)


class RunDetailSerializer(RunSerializer):
    """A single run with all its fields, also those that lists leave out."""

    shows = (
        "payload payloadHidden prompt mcpUrl toolCalls denials output lateResult phases"
        " previousRunId nextRunId"
    )
    payloadHidden = serializers.SerializerMethodField()
    toolCalls = serializers.SerializerMethodField()
    denials = serializers.SerializerMethodField()
    lateResult = LateResultField(allow_null=True)
    phases = serializers.SerializerMethodField()
    previousRunId = serializers.UUIDField(allow_null=True)
    nextRunId = serializers.UUIDField(allow_null=True)

    @extend_schema_field(RunPhaseSerializer(many=True))
    def get_phases(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        return phases(run)

    def get_payloadHidden(self, run: dict[str, Any]) -> bool:  # noqa: N802
        """Whether there is a payload that the caller may not see, as it comes from an event."""
        return bool(run.get("payload_hidden"))

    @extend_schema_field(serializer_of(Denials)(allow_null=True))
    def get_denials(self, run: dict[str, Any]) -> dict[str, Any] | None:
        """The calls that the run was denied, or None if its worker did not tell."""
        if run["denials_total"] is None:
            return None
        return {"total": run["denials_total"], "tools": run["denied_tools"]}

    @extend_schema_field(serializer_of(ToolCalls)(allow_null=True))
    def get_toolCalls(self, run: dict[str, Any]) -> dict[str, int] | None:  # noqa: N802
        return tool_calls(run)


class ToolCallSerializer(serializers.Serializer[Any]):
    """A call of an MCP tool. Its arguments and its result are kept nowhere."""

    callId = serializers.CharField(allow_null=True)
    startedAt = serializers.DateTimeField()
    tool = serializers.CharField()
    durationMs = serializers.IntegerField(allow_null=True)
    outcome = serializers.ChoiceField(choices=CALL_OUTCOMES)
    effect = serializers.ChoiceField(choices=CALL_EFFECTS)
    before = serializers.BooleanField(required=False)
