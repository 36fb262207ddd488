"""Renders explanations for the API."""

from typing import Any

from rest_framework import serializers

from triggers.explain.answers import DECISIONS, RETRY_CODES, RetryDecision, WaitingFor
from triggers.schedules.serializers import TickSerializer
from triggers.states import EndedBy, EventDecided, FaultClass, Status


class SubjectSerializer(serializers.Serializer[Any]):
    """The worker, pool, trigger, connection, environment, budget, approval or source that something is about."""

    type = serializers.ChoiceField(
        choices=(
            "worker",
            "pool",
            "trigger",
            "connection",
            "environment",
            "budget",
            "approval",
            "source",
        )
    )
    id = serializers.UUIDField()
    name = serializers.CharField()


class WaitingForSerializer(serializers.Serializer[Any]):
    """One thing that a queued or waiting run waits for."""

    code = serializers.ChoiceField(choices=[code.value for code in WaitingFor])
    message = serializers.CharField()
    subject = SubjectSerializer(allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    remedy = serializers.CharField(allow_null=True)
    place = serializers.IntegerField(allow_null=True)


class HeldSerializer(serializers.Serializer[Any]):
    """Which worker holds a claimed or running run, and until when."""

    workerId = serializers.UUIDField(source="worker_id")
    claimedAt = serializers.DateTimeField(source="claimed_at")
    lastHeartbeatAt = serializers.DateTimeField(source="last_heartbeat_at")
    leaseExpiresAt = serializers.DateTimeField(source="lease_expires_at")
    deadlineAt = serializers.DateTimeField(source="deadline_at")
    cancelRequested = serializers.BooleanField(source="cancel_requested")


class EndedSerializer(serializers.Serializer[Any]):
    """How a run ended."""

    at = serializers.DateTimeField()
    by = serializers.ChoiceField(choices=EndedBy.choices)
    faultClass = serializers.ChoiceField(source="fault_class", choices=FaultClass.choices)
    message = serializers.CharField(allow_null=True)


class RetrySerializer(serializers.Serializer[Any]):
    """Whether an ended run has a retry, and why."""

    decision = serializers.ChoiceField(choices=[decision.value for decision in RetryDecision])
    code = serializers.ChoiceField(choices=[str(code) for code in RETRY_CODES])
    message = serializers.CharField()
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    dueAt = serializers.DateTimeField(source="due_at", allow_null=True)


class EventNamedSerializer(serializers.Serializer[Any]):
    """An event, and the source that sent it or the trigger whose run ended."""

    id = serializers.UUIDField()
    type = serializers.CharField(allow_null=True)
    receivedAt = serializers.DateTimeField(source="received_at")
    source = SubjectSerializer()  # type: ignore[assignment]
    runId = serializers.UUIDField(source="run_id", allow_null=True)


class EventExplanationSerializer(serializers.Serializer[Any]):
    """What was decided about an event for one trigger."""

    event = EventNamedSerializer()
    decision = serializers.ChoiceField(choices=EventDecided.choices)
    code = serializers.CharField(allow_null=True)
    clause = serializers.JSONField(allow_null=True)
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    message = serializers.CharField()


class RunExplanationSerializer(serializers.Serializer[Any]):
    """Where a run stands, and why."""

    runId = serializers.UUIDField(source="run_id")
    status = serializers.ChoiceField(choices=Status.choices)
    summary = serializers.CharField()
    waitingFor = WaitingForSerializer(source="waiting_for", many=True)
    held = HeldSerializer(allow_null=True)
    ended = EndedSerializer(allow_null=True)
    retry = RetrySerializer(allow_null=True)
    event = EventNamedSerializer(allow_null=True)


class TriggerExplanationSerializer(serializers.Serializer[Any]):
    """What became, or will become, of a due time of a trigger's schedule."""

    at = serializers.DateTimeField()
    decision = serializers.ChoiceField(choices=[str(decision) for decision in DECISIONS])
    message = serializers.CharField()
    dueAt = serializers.DateTimeField(source="due_at", allow_null=True)
    tick = TickSerializer(allow_null=True)
    run = RunExplanationSerializer(allow_null=True)
    previousDueAt = serializers.DateTimeField(source="previous_due_at", allow_null=True)
    nextDueAt = serializers.DateTimeField(source="next_due_at", allow_null=True)
    lastEvent = EventExplanationSerializer(source="last_event", allow_null=True)
