"""The endpoints that explain why a run was not executed, and what became of a due time of a trigger (SPEC §13)."""

from datetime import datetime
from functools import partial
from uuid import UUID

from django.forms import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid, or_not_found
from pipedai.api.filters import TimeField
from pipedai.api.schema.operation import Operation, query
from pipedai.api.throttling import TooManyRequests
from pipedai.server.memory_budget import RequestLimit
from triggers import tenancy
from triggers.explain.due_times import check_time_in_question, explain_trigger
from triggers.explain.runs import explain_run
from triggers.explain.serializers import RunExplanationSerializer, TriggerExplanationSerializer
from workspaces.access import IsViewer, TenantViewSet
from workspaces.roles import Role

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
    def retrieve(self, request: Request, run_id: UUID) -> Response:
        _count_request(self.access.environment_id, request)
        explanation = or_not_found(explain_run(run_id))
        return Response(RunExplanationSerializer(explanation).data)


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
    def retrieve(self, request: Request, trigger_id: UUID) -> Response:
        at = _time_in_question(request, trigger_id)
        _count_request(self.access.environment_id, request)
        shows_values = self.access.role.includes(Role.OPERATOR)
        explanation = or_not_found(explain_trigger(trigger_id, at=at, shows_values=shows_values))
        return Response(TriggerExplanationSerializer(explanation).data)


def _count_request(environment_id: UUID, request: Request) -> None:
    if not _UNDER_WAY.admits(environment_id, request):
        raise TooManyRequests(
            "Two explanations are being worked out already: ask again when they are there.",
            headers={"Retry-After": "1"},
        )


def _time_in_question(request: Request, trigger_id: UUID) -> datetime | None:
    """Raises Invalid if `at` is no time, or too far ahead."""
    field = TimeField(required=False, zone=partial(tenancy.zone_of_trigger, trigger_id))
    try:
        at: datetime | None = field.clean(request.query_params.get("at"))
        check_time_in_question(at)
    except ValidationError as error:
        raise Invalid({"at": [str(message) for message in error.messages]}) from None
    except ValueError as error:
        raise Invalid({"at": [str(error)]}) from None
    return at
