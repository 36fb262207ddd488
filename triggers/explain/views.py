"""The endpoints that explain why a run was not executed, and what became of a due time of a trigger."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid, or_not_found
from pipedai.api.schema.operation import Operation, query
from pipedai.api.serializers import NamedSerializer
from pipedai.api.throttling import TooManyRequests
from pipedai.server.memory_budget import RequestLimit
from triggers import tenancy
from triggers.explain.answers import DECISIONS, RETRY_CODES, RetryDecision
from triggers.explain.due_times import explain_trigger, time_in_question
from triggers.explain.runs import explain_run
from triggers.reasons import WaitingFor
from triggers.schedules.views import TickSerializer
from triggers.states import EndedBy, EventDecided, FaultClass, Status
from workspaces.access import IsViewer, TenantViewSet
from workspaces.roles import Role


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


class TimeToldSerializer(serializers.Serializer[Any]):
    """A time in the sentences of an answer: the words that stand for it there, and the moment."""

    words = serializers.CharField()
    at = serializers.DateTimeField()


class WaitingForSerializer(serializers.Serializer[Any]):
    """One thing that a queued or waiting run waits for."""

    code = serializers.ChoiceField(choices=[code.value for code in WaitingFor])
    message = serializers.CharField()
    subject = SubjectSerializer(allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    remedy = serializers.CharField(allow_null=True)
    place = serializers.IntegerField(allow_null=True)


class AdviceSerializer(serializers.Serializer[Any]):
    """What a worker that may take or holds the run says is wrong with its machine."""

    code = serializers.CharField()
    message = serializers.CharField()
    subject = SubjectSerializer()


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
    advice = AdviceSerializer(many=True)
    held = HeldSerializer(allow_null=True)
    ended = EndedSerializer(allow_null=True)
    retry = RetrySerializer(allow_null=True)
    event = EventNamedSerializer(allow_null=True)
    times = TimeToldSerializer(many=True)


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
    healthMessage = serializers.CharField(allow_null=True)
    lastEvent = EventExplanationSerializer(allow_null=True)
    times = TimeToldSerializer(many=True)


# Each environment may have two explanations under way in a process, because an explanation of a run in a long queue
# takes PostgreSQL as long as many other calls. Those that staff read in admin, and `manage.py explain`, don't count.
_UNDER_WAY = RequestLimit(2)


class RunExplanationViewSet(TenantViewSet):
    row = tenancy.ALL_RUNS
    tag = "Runs"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /runs/{runId}/explain",
        id="explainRun",
        summary="Explain why a run has not run",
        answers={200: RunExplanationSerializer},
    )
    def retrieve(self, request: Request, run_id: UUID) -> Any:
        _count_request(self.access.environment_id, request)
        return or_not_found(explain_run(run_id))


class TriggerExplanationViewSet(TenantViewSet):
    row = tenancy.LIVE_TRIGGERS
    tag = "Triggers"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /triggers/{triggerId}/explain",
        id="explainTrigger",
        summary="Explain what became of a due time",
        parameters=(
            query(
                "at",
                {"type": "string", "format": "date-time"},
                description=(
                    "The time in question, at most 366 days ahead, in the trigger's time zone unless it "
                    "has an offset; now by default."
                ),
            ),
        ),
        answers={200: TriggerExplanationSerializer},
    )
    def retrieve(self, request: Request, trigger_id: UUID) -> Any:
        try:
            at = time_in_question(request.query_params.get("at"), trigger_id)
        except ValueError as error:
            raise Invalid({"at": [str(error)]}) from None
        _count_request(self.access.environment_id, request)
        shows_values = self.access.role.includes(Role.OPERATOR)
        return or_not_found(explain_trigger(trigger_id, at=at, shows_values=shows_values))


def _count_request(environment_id: UUID, request: Request) -> None:
    if not _UNDER_WAY.admits(environment_id, request):
        raise TooManyRequests(
            "Two explanations are being worked out already: ask again when they are there.",
            headers={"Retry-After": "1"},
        )
