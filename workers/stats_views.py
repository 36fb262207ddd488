"""The endpoint of the statistics of an environment's runs."""

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
from triggers.runs.stats import MAX_DAYS, Window, run_stats
from workers.filters import StatsFilters
from workers.stats_serializers import GroupStatsSerializer, StatsSerializer
from workspaces.access import TenantViewSet
from workspaces.permissions import IsViewer

# Each environment may have two statistics under way in a process, because a long window of a busy environment takes a
# thread, and a core of the database, for a second.
_UNDER_WAY = RequestLimit(2)


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
        errors={
            400: "A bad parameter, or a window that is empty or too long.",
            429: "Two statistics of the environment are being worked out already.",
            503: "It takes more than 10 s.",
        },
    )
    def list(self, request: Request, environment_id: UUID) -> Response:
        sent = StatsFilters.read(Run.objects.none(), request).values
        window = _window(sent["from"], sent["to"], sent["timezone"])
        if not _UNDER_WAY.admits(environment_id, request):
            raise TooManyRequests(
                "Two statistics are being worked out already: ask again when they are there.",
                headers={"Retry-After": "1"},
            )
        # Only this part may be done twice, for a replica and then for the primary. The request is counted above, and
        # the window must not change.
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


def _window(begin: datetime | None, end: datetime | None, timezone: str) -> Window:
    try:
        window = Window.of(begin, end or database_now(), timezone)
        length = window.length
    except OverflowError:
        raise Invalid({"from" if begin else "to": ["Too far away."]}) from None
    if window.begin >= window.end:
        raise Invalid({"to": ["Must be later than `from`."]})
    if length > timedelta(days=MAX_DAYS):
        raise Invalid({"from": [f"Must be at most {MAX_DAYS} days before `to`."]})
    return window
