"""The endpoint of an environment's dashboard: its workers, the runs that wait, what has run, and what is due."""

from contextlib import suppress
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfoNotFoundError

from rest_framework import serializers
from rest_framework.request import Request

from notices.attention import count_attention
from pipedai.api.filters import ApiFilterSet, TimezoneFilter
from pipedai.api.principal import principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import RowSerializer
from pipedai.replica.reading import read_for
from pipedai.sql import NOW, Row, fetch_all, fetch_row
from triggers.budgets.spending import period_around
from triggers.models import Budget, Run
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED, IS_DUE, is_online
from triggers.runs.stats import run_figures
from triggers.schedules.cron import DueTimes
from workspaces.access import IsViewer, TenantViewSet

# At most this many due times are listed.
MOST_DUE: Final = 20
# At most this many groups of triggers that come due again are worked out, so that an environment with thousands of
# schedules keeps no web thread busy for seconds.
_MOST_RECURRING = 500

# The present state is read from the primary: a replica that is some seconds behind would show workers as offline.
_PRESENT = f"""
SELECT {NOW} AS now,
    (SELECT count(*) FROM worker w
        WHERE w.environment_id = %(environment_id)s AND w.deleted_at IS NULL AND {is_online("w")}) AS online_workers,
    (SELECT count(*) FROM run r
        WHERE r.environment_id = %(environment_id)s AND r.status = 'waiting' AND r.ended_at IS NULL) AS person,
    (SELECT count(*) FROM run r
        WHERE r.environment_id = %(environment_id)s AND {IS_COUNTED_AS_QUEUED} AND {IS_DUE}) AS machine,
    (SELECT count(*) FROM approval WHERE environment_id = %(environment_id)s AND status = 'pending') AS approvals
"""  # noqa: S608

# The triggers that are due at one of the next MOST_DUE due times, grouped by what decides their following due time. The
# CTE keeps PostgreSQL from reading the due times of all environments.
_DUE = f"""
WITH scheduled AS MATERIALIZED (
    SELECT id, name COLLATE "C" AS name, schedule, timezone, run_once_at, next_run_at FROM trigger
    WHERE environment_id = %(environment_id)s AND deleted_at IS NULL AND enabled AND next_run_at IS NOT NULL)
SELECT next_run_at AS at, schedule, timezone, run_once_at, count(*) AS count,
    (array_agg(id ORDER BY name, id))[1] AS trigger_id, min(name) AS trigger_name
FROM (SELECT *, dense_rank() OVER (ORDER BY next_run_at) AS nth FROM scheduled) s
WHERE nth <= {MOST_DUE}
GROUP BY next_run_at, schedule, timezone, run_once_at
ORDER BY next_run_at, trigger_name, trigger_id
"""  # noqa: S608


def due_until(end: datetime, groups: list[Row]) -> list[Row]:
    """Returns the due times before `end`, each with its number of triggers and the first of them by name. It returns at
    most MOST_DUE, and fewer if more than _MOST_RECURRING groups come due again.
    """
    coming = [(group["at"], n) for n, group in enumerate(groups)]
    heapify(coming)
    times: list[Row] = []
    recurring = 0
    while coming and coming[0][0] < end and len(times) < MOST_DUE and recurring <= _MOST_RECURRING:
        at, due = coming[0][0], []
        while coming and coming[0][0] == at:
            due.append(heappop(coming)[1])
        first = min(
            (groups[n] for n in due), key=lambda one: (one["trigger_name"], one["trigger_id"])
        )
        times.append({**first, "at": at, "count": sum(groups[n]["count"] for n in due)})
        recurring += len(due)
        for n in due if recurring <= _MOST_RECURRING else ():
            # A schedule or time zone that this release no longer knows has no further due time.
            with suppress(ValueError, ZoneInfoNotFoundError):
                if (following := DueTimes.of(groups[n]).next_after(at)) is not None:
                    heappush(coming, (following, n))
    return times


class OverviewFilters(ApiFilterSet):
    timezone = TimezoneFilter()


class NextDueSerializer(RowSerializer):
    """The trigger that is due next, and when."""

    triggerId = serializers.UUIDField()
    triggerName = serializers.CharField()
    at = serializers.DateTimeField()
    timezone = serializers.CharField()


class DueTimeSerializer(RowSerializer):
    """A due time, how many triggers are due then, and one of them."""

    at = serializers.DateTimeField()
    count = serializers.IntegerField()
    triggerId = serializers.UUIDField()
    triggerName = serializers.CharField()


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
                waiting=answer(
                    "WaitingRuns",
                    "How many runs wait for whom.",
                    person=serializers.IntegerField(),
                    machine=serializers.IntegerField(),
                )(),
                attention=serializers.IntegerField(),
                approvals=serializers.IntegerField(),
                todaysRuns=serializers.IntegerField(),
                nothingNewToday=serializers.IntegerField(),
                successRatePct=serializers.FloatField(allow_null=True),
                monthTokenSpendUsd=serializers.FloatField(),
                nextDue=NextDueSerializer(allow_null=True),
                dueToday=DueTimeSerializer(many=True),
            )
        },
    )
    def retrieve(self, request: Request, environment_id: UUID) -> Any:
        timezone = OverviewFilters.read(Run.objects.none(), request).values["timezone"]
        params: dict[str, Any] = {"environment_id": environment_id, "now": None}
        present = fetch_row(_PRESENT, params)
        figures = read_for(
            principal_of(request).id,
            lambda: run_figures(
                environment_id=environment_id, timezone=timezone, now=present["now"]
            ),
        )
        rate, groups = figures["success_rate"], fetch_all(_DUE, params)
        _, midnight = period_around(present["now"], Budget.Period.DAY, timezone)
        return {
            "onlineWorkers": present["online_workers"],
            "waiting": present,
            "attention": count_attention(environment_id),
            "approvals": present["approvals"],
            "todaysRuns": figures["todays_runs"],
            "nothingNewToday": figures["nothing_new"],
            "successRatePct": None if rate is None else float(rate),
            "monthTokenSpendUsd": float(figures["month_cost_usd"]),
            "nextDue": groups[0] if groups else None,
            "dueToday": due_until(midnight, groups),
        }
