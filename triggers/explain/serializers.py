"""Renders explanations for the API."""

from typing import Any

from rest_framework import serializers

from pipedai.api.serializers import NamedSerializer
from triggers.explain.answers import DECISIONS, RETRY_CODES, RetryDecision
from triggers.reasons import WaitingFor
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


class HeldSerializer(NamedSerializer):
    """Which worker holds a claimed or running run, and until when."""

    workerId = serializers.UUIDField()
    claimedAt = serializers.DateTimeField()
    lastHeartbeatAt = serializers.DateTimeField()
    leaseExpiresAt = serializers.DateTimeField()
    deadlineAt = serializers.DateTimeField()
    cancelRequested = serializers.BooleanField()


class EndedSerializer(NamedSerializer):
    """How a run ended."""

    at = serializers.DateTimeField()
    by = serializers.ChoiceField(choices=EndedBy.choices)
    faultClass = serializers.ChoiceField(choices=FaultClass.choices)
    message = serializers.CharField(allow_null=True)


class RetrySerializer(NamedSerializer):
    """Whether an ended run has a retry, and why."""

    decision = serializers.ChoiceField(choices=[decision.value for decision in RetryDecision])
    code = serializers.ChoiceField(choices=[str(code) for code in RETRY_CODES])
    message = serializers.CharField()
    runId = serializers.UUIDField(allow_null=True)
    dueAt = serializers.DateTimeField(allow_null=True)


class EventNamedSerializer(NamedSerializer):
    """An event, and the source that sent it or the trigger whose run ended."""

    id = serializers.UUIDField()
    type = serializers.CharField(allow_null=True)
    receivedAt = serializers.DateTimeField()
    source = SubjectSerializer()  # type: ignore[assignment]
    runId = serializers.UUIDField(allow_null=True)


class EventExplanationSerializer(NamedSerializer):
    """What was decided about an event for one trigger."""

    event = EventNamedSerializer()
    decision = serializers.ChoiceField(choices=EventDecided.choices)
    code = serializers.CharField(allow_null=True)
    clause = serializers.JSONField(allow_null=True)
    runId = serializers.UUIDField(allow_null=True)
    message = serializers.CharField()


class RunExplanationSerializer(NamedSerializer):
    """Where a run stands, and why."""

    runId = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.choices)
    summary = serializers.CharField()
    waitingFor = WaitingForSerializer(many=True)
    held = HeldSerializer(allow_null=True)
    ended = EndedSerializer(allow_null=True)
    retry = RetrySerializer(allow_null=True)
    event = EventNamedSerializer(allow_null=True)


class TriggerExplanationSerializer(NamedSerializer):
    """What became, or will become, of a due time of a trigger's schedule."""

    at = serializers.DateTimeField()
    decision = serializers.ChoiceField(choices=[str(decision) for decision in DECISIONS])
    message = serializers.CharField()
    dueAt = serializers.DateTimeField(allow_null=True)
    tick = TickSerializer(allow_null=True)
    run = RunExplanationSerializer(allow_null=True)
    previousDueAt = serializers.DateTimeField(allow_null=True)
    nextDueAt = serializers.DateTimeField(allow_null=True)
    lastEvent = EventExplanationSerializer(allow_null=True)
