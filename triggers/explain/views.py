"""The endpoints that explain why a run was not executed, and what became of a due time of a trigger."""

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid, or_not_found
from pipedai.api.schema.operation import Operation, query
from pipedai.api.serializers import NamedSerializer
from pipedai.api.throttling import admit
from pipedai.server.memory_budget import RequestLimit
from triggers import tenancy
from triggers.explain.answers import (
    DECISIONS,
    RETRY_CODES,
    Reason,
    Retry,
    RunExplanation,
    TriggerExplanation,
)
from triggers.explain.due_times import explain_trigger, time_in_question
from triggers.explain.runs import explain_run
from triggers.schedules.views import TickSerializer
from workspaces.access import IsViewer, TenantViewSet
from workspaces.roles import Role


class WaitingForSerializer(NamedSerializer):
    """One thing that a queued or waiting run waits for."""

    of = Reason


class RetrySerializer(NamedSerializer):
    """Whether an ended run has a retry, and why."""

    of = Retry
    code = serializers.ChoiceField(choices=[str(code) for code in RETRY_CODES])


class RunExplanationSerializer(NamedSerializer):
    """Where a run stands, and why."""

    of = RunExplanation
    waitingFor = WaitingForSerializer(many=True)
    retry = RetrySerializer(allow_null=True)


class TriggerExplanationSerializer(NamedSerializer):
    """What became, or will become, of a due time of a trigger's schedule."""

    of = TriggerExplanation
    decision = serializers.ChoiceField(choices=[str(decision) for decision in DECISIONS])
    tick = TickSerializer(allow_null=True)
    run = RunExplanationSerializer(allow_null=True)


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
    sentence = "Two explanations are being worked out already: ask again when they are there."
    admit(_UNDER_WAY, environment_id, request, sentence)
