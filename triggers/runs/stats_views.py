"""The endpoints of an environment's figures: the overview, and the statistics of runs."""

from datetime import datetime, timedelta
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.api.principal import principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.throttling import TooManyRequests
from pipedai.replica.reading import read_for
from pipedai.server.memory_budget import RequestLimit
from pipedai.sql import database_now
from triggers.models import Run
from triggers.runs.filters import OverviewFilters, StatsFilters
from triggers.runs.overview import count_online_workers, next_due, run_figures
from triggers.runs.serializers import GroupStatsSerializer, NextDueSerializer, StatsSerializer
from triggers.runs.stats import MAX_DAYS, Window, run_stats
from workspaces.access import IsViewer, TenantViewSet

# Each environment may have two statistics under way in a process, because a long window of a busy environment takes a
# thread, and a core of the database, for a second.
_UNDER_WAY = RequestLimit(2)


class OverviewViewSet(TenantViewSet):
    """The figures of an environment's dashboard."""

    tag = "Overview"
    permissions = {"retrieve": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/dashboard/overview",
        id="getOverview",
        summary="Get the figures of a dashboard",
        filters=OverviewFilters,
        answers={
            200: answer(
                "Overview",
                "The figures of a dashboard.",
                onlineWorkers=serializers.IntegerField(),
                todaysRuns=serializers.IntegerField(),
                successRatePct=serializers.FloatField(allow_null=True),
                monthTokenSpendUsd=serializers.FloatField(),
                nextDue=NextDueSerializer(allow_null=True),
            )
        },
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Response:
        timezone = OverviewFilters.read(Run.objects.none(), request).values["timezone"]
        # This is read from the primary, because a replica that is some seconds behind would show workers as offline.
        online, now = count_online_workers(environment_id)
        figures = read_for(
            principal_of(request).id,
            lambda: run_figures(environment_id=environment_id, timezone=timezone, now=now),
        )
        rate, due = figures["success_rate"], next_due(environment_id)
        return Response(
            {
                "onlineWorkers": online,
                "todaysRuns": figures["todays_runs"],
                "successRatePct": None if rate is None else float(rate),
                "monthTokenSpendUsd": float(figures["month_cost_usd"]),
                "nextDue": due and NextDueSerializer(due).data,
            }
        )


class StatsViewSet(TenantViewSet):
    tag = "Overview"
    permissions = {"list": IsViewer}

    @Operation(
        "GET /environments/{environmentId}/stats",
        id="getStats",
        summary="Get statistics of runs",
        filters=StatsFilters,
        answers={
            200: answer(
                "StatsOfWindow",
                "The sums of the runs that ended in a window, by group.",
                **{
                    "from": serializers.DateTimeField(),
                    "to": serializers.DateTimeField(),
                    "items": GroupStatsSerializer(many=True),
                    "groups": serializers.IntegerField(),
                    "total": StatsSerializer(),
                },
            )
        },
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        sent = StatsFilters.read(Run.objects.none(), request).values
        window = _window(sent["from"], sent["to"], sent["period"], sent["timezone"])
        if not _UNDER_WAY.admits(environment_id, request):
            raise TooManyRequests(
                "Two statistics are being worked out already: ask again when they are there.",
                headers={"Retry-After": "1"},
            )
        # Only this part may be done twice: the request was counted above, and the window must not change.
        stats = read_for(
            principal_of(request).id,
            lambda: run_stats(
                environment_id=environment_id, group_by=sent["groupBy"], window=window
            ),
        )
        return Response(
            {
                "from": window.begin,
                "to": window.end,
                "items": GroupStatsSerializer(stats.items, many=True).data,
                "groups": stats.groups,
                "total": StatsSerializer(stats.total).data,
            }
        )


def _window(
    begin: datetime | None, end: datetime | None, period: str | None, timezone: str
) -> Window:
    if begin and period:
        raise Invalid({"from": ["Must not be given together with `period`."]})
    try:
        window = Window.of(begin, end or database_now(), timezone, period)
        length = window.length
    except OverflowError:
        raise Invalid({"from" if begin else "to": ["Too far away."]}) from None
    if window.begin >= window.end:
        raise Invalid({"to": ["Must be later than `from`."]})
    if length > timedelta(days=MAX_DAYS):
        raise Invalid({"from": [f"Must be at most {MAX_DAYS} days before `to`."]})
    return window
