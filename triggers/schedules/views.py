"""The endpoints of schedules: preview due times, and list a trigger's ticks, which are its due times."""

from functools import partial
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.fields import TextField, TimezoneField, WholeNumberField
from pipedai.api.filters import (
    ApiFilterSet,
    EndFilter,
    TimeFilter,
    WordsFilter,
)
from pipedai.api.pagination import KeysetPaginator
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import NamedSerializer, StrictBody, Values, serializer_of
from pipedai.api.throttling import Rate, admit
from pipedai.replica.reading import from_replica
from pipedai.server.memory_budget import RequestLimit
from pipedai.sql import database_now
from triggers import tenancy
from triggers.models import Tick
from triggers.schedules import cron
from triggers.serializers import TriggerBody
from triggers.states import Decision
from workspaces.access import IsViewer, TenantViewSet


class TickFilters(ApiFilterSet):
    decision = WordsFilter(field_name="decision", choices=Decision.values)
    to = EndFilter(field_name="tick_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="tick_at", lookup_expr="gte")


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


class TickSerializer(NamedSerializer):
    """A due time of a trigger's schedule (tick), and what was decided about it."""

    of = Tick
    shows = "tickAt decision runId blockedByRunId missedCount decidedAt"
    blockedByRunId = serializers.UUIDField(source="blocked_by_id", allow_null=True)


# Each environment may have one preview under way in a process. A preview takes some milliseconds of CPU, and several
# at once would slow down the calls of everybody else.
_PREVIEWS = RequestLimit(1)


class TickPaginator(KeysetPaginator):
    time_field = "tick_at"


class DecidedTickPaginator(TickPaginator):
    # The index `tick_by_decision` has the ticks of one decision in order, but no index has those of all decisions.
    sorts = False


class ScheduleViewSet(TenantViewSet):
    row = tenancy.LIVE_TRIGGERS
    tag = "Triggers"
    permissions = {"preview": IsViewer, "list_ticks": IsViewer}
    # The rate is high, because a page that shows a preview asks for a new one at each change of the schedule's field.
    environment_rates = {"preview": Rate("schedule-preview", 120, 60)}

    @Operation(
        "POST /environments/{environmentId}/schedule-preview",
        id="previewSchedule",
        summary="Preview a schedule",
        body=SchedulePreviewBody,
        example={"schedule": "30 2 28 3 *", "timezone": "Europe/Berlin", "count": 2},
        answers={
            200: answer(
                "SchedulePreview",
                "When a trigger would be due.",
                description=serializers.CharField(allow_null=True),
                times=serializer_of(cron.ComingTime)(many=True),
            )
        },
    )
    def preview(self, request: Request, environment_id: UUID, body: Values) -> Any:
        sentence = "A preview is being worked out already: ask again when it is there."
        admit(_PREVIEWS, environment_id, request, sentence)
        description, times = None, []
        if body["schedule"] is not None:
            try:
                schedule = cron.parse(body["schedule"], body["timezone"])
                times = cron.coming_times(schedule, database_now(), body["count"])
            except cron.BadSchedule as error:
                raise Invalid({"schedule": [str(error)]}) from None
            description = cron.describe(schedule)
        if body["run_once_at"] is not None:
            times = cron.with_single(times, body["run_once_at"], body["count"])
        return {"description": description, "times": times}

    @Operation(
        "GET /triggers/{triggerId}/ticks",
        id="listTicks",
        summary="List a trigger's ticks",
        items=TickSerializer,
        filters=TickFilters,
    )
    @from_replica
    def list_ticks(self, request: Request, trigger_id: UUID) -> Response:
        ticks = Tick.objects.filter(trigger_id=trigger_id)
        filters = TickFilters.read(
            ticks, request, zone=partial(tenancy.zone_of_trigger, trigger_id)
        )
        return self.page_shown(
            request,
            filters.parts,
            lambda page: TickSerializer(page, many=True).data,
            paginator=DecidedTickPaginator if filters.values["decision"] else TickPaginator,
        )
