"""Computes the figures of an environment's dashboard, and sums up its ended runs by trigger, worker, model, hour,
day, week or month.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid
from pipedai.api.fields import MoneyField
from pipedai.api.filters import (
    ApiFilterSet,
    TimeFilter,
    TimezoneFilter,
    WordFilter,
)
from pipedai.api.principal import principal_of
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import RowSerializer
from pipedai.api.throttling import admit
from pipedai.clocks import zone_of
from pipedai.replica.reading import read_for
from pipedai.server.memory_budget import RequestLimit
from pipedai.sql import Row, database_now, fetch_all, fetch_row, without_sorting
from triggers.budgets.spending import midnight, period_around
from triggers.models import Budget, Run
from workspaces.access import IsViewer, TenantViewSet

# The percentage of successes among ended runs, to one decimal, or NULL if no run counts. Canceled runs do not count:
# somebody stopped them, so they tell nothing about the work. The expression is for a SELECT from `run r`.
SUCCESS_RATE = """
round(100.0 * count(*) FILTER (WHERE r.status = 'succeeded')
    / nullif(count(*) FILTER (WHERE r.status <> 'canceled'), 0), 1)"""

# Sums up the runs since the beginning of the day, and of the month. The sums are quick, because two indexes contain all
# the columns they need: `run_ended_figures` for the day, and `run_ended_cost`, which is narrow, for the month. The runs
# are read in order, so that PostgreSQL starts to read the index at the beginning. Otherwise it might read all runs of
# an environment in which it expects few.
_OVERVIEW = f"""
SELECT
    (SELECT count(*) FROM (
        SELECT FROM run
        WHERE environment_id = %(environment_id)s AND queued_at >= %(day)s
        ORDER BY queued_at) r) AS todays_runs,
    ended.success_rate, ended.nothing_new, coalesce(spent.cost_usd, 0) AS month_cost_usd
FROM (
    SELECT {SUCCESS_RATE} AS success_rate, count(*) FILTER (WHERE r.nothing_new) AS nothing_new FROM (
        SELECT status, nothing_new FROM run
        WHERE environment_id = %(environment_id)s AND ended_at >= %(day)s
        ORDER BY ended_at) r) ended, (
    SELECT sum(r.cost_usd) AS cost_usd FROM (
        SELECT cost_usd FROM run
        WHERE environment_id = %(environment_id)s AND ended_at >= %(month)s
        ORDER BY ended_at) r) spent
"""


def run_figures(*, environment_id: UUID, timezone: str, now: datetime) -> Row:
    """Returns the figures of the day and the month of `now`, which begin at midnight in the time zone. `success_rate`
    is in percent of the runs that ended on the day and were not canceled; None if there are none.
    """
    params: dict[str, Any] = {"environment_id": environment_id}
    params |= {each: period_around(now, each, timezone)[0] for each in Budget.Period.values}
    with without_sorting():
        return fetch_row(_OVERVIEW, params)


# The most groups in an answer. Nothing else limits them: users may delete and make triggers again and again, and
# workers report any name as the model.
MAX_GROUPS = 1_000

# How many days a window has by default; the next constant is for weeks and months.
DEFAULT_DAYS = 30

DEFAULT_SPANS = 12

MAX_DAYS = 400

MAX_DAYS_OF_HOURS = 7

# A longer window has no percentiles, because PostgreSQL must sort the durations of all its runs for them.
MAX_DAYS_OF_PERCENTILES = 93

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)

_MOMENT = timedelta(microseconds=1)

# For each way to group by a column of runs: the key, and the table and column that have the names of the keys.
_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "trigger": ("r.trigger_id", "trigger", "name"),
    "worker": ("r.worker_id", "worker", "label"),
    "model": ("r.model", "", ""),
}

DAY_AND_TRIGGER = "day,trigger"

# The spans that begin with a day.
_SPANS = ("day", "week", "month")

GROUPINGS = (*_COLUMNS, "hour", *_SPANS, DAY_AND_TRIGGER)

_RUNS_OF_WINDOW = """
FROM run r
WHERE r.environment_id = %(environment_id)s AND r.ended_at IS NOT NULL
    AND r.ended_at >= %(begin)s AND r.ended_at < %(end)s"""

# The hour of a run, or the first day of its span. The caller works out the beginnings of all hours or days, because
# PostgreSQL would need a third of the whole statement's time to convert the time of each run to the zone.
_NTH_PERIOD = "width_bucket(r.ended_at, %(begins)s::timestamptz[])"
_DAY_OF_RUN = f"(%(periods)s::date[])[{_NTH_PERIOD}]"
_HOUR_OF_RUN = f"(%(periods)s::timestamptz[])[{_NTH_PERIOD}]"

# The percentiles are nearest-rank ones, so each is the time that some run really took. They are in microseconds,
# because whole numbers are sorted faster than intervals. PostgreSQL leaves out the runs that never started, whose
# duration is NULL. No duration is negative, even if the clock was put back.
_LAST = "(date_part('epoch', greatest(r.ended_at, r.started_at) - r.started_at) * 1000000)::bigint"

_DURATIONS = f"""
percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (
    ORDER BY CASE WHEN r.active_ms IS NULL THEN {_LAST} ELSE r.active_ms * 1000 + coalesce({_LAST}, 0) END)"""

_NO_DURATIONS = "NULL::bigint[]"

# All columns of `run` are in the index `run_ended_figures`, so PostgreSQL need not read the runs themselves.
_FIGURES = f"""count(*) AS runs,
        count(*) FILTER (WHERE r.status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE r.status = 'failed') AS failed,
        count(*) FILTER (WHERE r.status = 'timed_out') AS timed_out,
        count(*) FILTER (WHERE r.status = 'canceled') AS canceled,
        count(*) FILTER (WHERE r.nothing_new) AS nothing_new,
        count(*) FILTER (WHERE r.source = 'retry') AS retries,
        {SUCCESS_RATE} AS success_rate,
        coalesce(sum(r.cost_usd), 0) AS cost_usd,
        coalesce(sum(r.cost_usd) FILTER (WHERE r.worker_id IN (
            SELECT id FROM worker WHERE environment_id = %(environment_id)s AND auth_mode = 'claude_max')), 0)
            AS notional_usd,
        coalesce(sum(r.input_tokens), 0) AS input_tokens,
        coalesce(sum(r.output_tokens), 0) AS output_tokens,
        {{durations}} AS durations"""

# The figures of an hour or a span without runs.
_NO_RUNS: Row = {
    **dict.fromkeys(
        ("runs", "succeeded", "failed", "timed_out", "canceled", "nothing_new", "retries"), 0
    ),
    **dict.fromkeys(("input_tokens", "output_tokens"), 0),
    **dict.fromkeys(("cost_usd", "notional_usd"), Decimal(0)),
    **dict.fromkeys(("name", "success_rate", "p50_ms", "p95_ms")),
}

# The total is the grouping set without a key. It comes first, then the groups with the most runs, or the hours or spans
# in their order.
_STATS = """
WITH sums AS (
    SELECT grouping({key}) = 1 AS is_total, {key} AS key, {day} AS day, {figures}
    {runs}
    GROUP BY GROUPING SETS (({key}), ())),
shown AS (
    SELECT *, count(*) OVER () - 1 AS groups FROM sums ORDER BY is_total DESC, {most} LIMIT %(most)s + 1)
SELECT shown.*, {name} AS name FROM shown {names} ORDER BY is_total DESC, {most}
"""

# A month may have far more pairs of a day and a trigger than are shown. So it only counts the runs of all pairs, and
# works out the figures for the pairs with the most runs. CASE makes PostgreSQL look each run up in a hash table of
# these pairs, instead of comparing it with each of them.
_STATS_OF_PAIRS = """
WITH counted AS MATERIALIZED (
    SELECT {day} AS day, r.trigger_id AS key, count(*) AS runs {runs} GROUP BY 1, 2),
largest AS MATERIALIZED (
    SELECT day, key FROM counted ORDER BY runs DESC, day, key LIMIT %(most)s),
sums AS (
    SELECT true AS is_total, NULL::uuid AS key, NULL::date AS day, {figures} {runs}
    UNION ALL
    SELECT false, r.trigger_id, r.day, {figures}
    FROM (
        SELECT r.*, {day} AS day {runs}
            AND CASE WHEN ({day}, r.trigger_id) IN (SELECT day, key FROM largest) THEN true END
        OFFSET 0) r
    GROUP BY r.day, r.trigger_id)
SELECT sums.*, (SELECT count(*) FROM counted) AS groups, n.name
FROM sums LEFT JOIN trigger n ON n.environment_id = %(environment_id)s AND n.id = sums.key
ORDER BY is_total DESC, day, runs DESC, key
"""


@dataclass(frozen=True, slots=True)
class Window:
    begin: datetime
    end: datetime
    timezone: str

    @classmethod
    def of(
        cls,
        begin: datetime | None,
        end: datetime,
        timezone: str,
        period: str | None = None,
        group_by: str = "day",
    ) -> "Window":
        """Returns the window that ends at `end`. Without `begin`, it begins with the day or month, as `period` says, of
        the last moment before `end`. Without both, it ends with the hour, day, week or month of that moment, and has 24
        hours, DEFAULT_DAYS days, or DEFAULT_SPANS weeks or months.
        """
        zone = zone_of(timezone)
        if begin is None and period:
            begin, _ = period_around(end - _MOMENT, period, timezone)
        elif begin is None and group_by == "hour":
            begin = _hour(end - _MOMENT, zone) - _HOUR * 23
        elif begin is None:
            first = _first_day(_last_day(end, zone), group_by)
            is_longer = group_by in ("week", "month")
            for _ in range((DEFAULT_SPANS if is_longer else DEFAULT_DAYS) - 1):
                first = _first_day(first - _DAY, group_by)
            begin = midnight(first, zone)
        return cls(begin, end, timezone)

    @property
    def length(self) -> timedelta:
        """Returns the length by the zone's clocks: each day has 24 hours, even if the clocks change on it."""
        begin, end = (
            _on_the_clock(moment, zone_of(self.timezone)) for moment in (self.begin, self.end)
        )
        return end - begin

    @property
    def days(self) -> list[tuple[date, datetime]]:
        """Returns each day with its beginning. That of the first day is the beginning of the window."""
        zone = zone_of(self.timezone)
        first = _on_the_clock(self.begin, zone).date()
        # If the clocks go back over midnight, a short window may end on an earlier date than it begins.
        last = max(first, _last_day(self.end, zone))
        dates = [first + _DAY * n for n in range((last - first).days + 1)]
        return [(first, self.begin), *((each, midnight(each, zone)) for each in dates[1:])]

    @property
    def hours(self) -> list[tuple[datetime, datetime]]:
        """Returns a pair for each hour: twice its beginning by the zone's clocks. The first begins with the window."""
        zone, begins = zone_of(self.timezone), [self.begin]
        while (following := _hour(begins[-1], zone) + _HOUR) < self.end:
            begins.append(following)
        return [(each, each) for each in begins]

    def spans(self, of: str) -> list[tuple[date, datetime]]:
        """Returns each day, week or month, by its first day, with its beginning. The first begins with the window."""
        begins: dict[date, datetime] = {}
        for day, begin in self.days:
            begins.setdefault(_first_day(day, of), begin)
        return list(begins.items())


def run_stats(*, environment_id: UUID, group_by: str, window: Window) -> Row:
    """Returns the sums of the runs that ended in the window, by the groups that `group_by`, one of GROUPINGS, names:
    in `items` a row for each, in `total` one for all runs, and in `groups` how many groups there are.

    The groups with the most runs come first, and there are MAX_GROUPS at most. Hours, days, weeks and months come in
    their order instead, and one without runs has zeros. By day and trigger, the groups are those with runs; the days
    come in their order, and of each day the triggers with the most runs first. In each row `p50_ms` and `p95_ms` are
    the median and the 95th percentile of the runs' durations in milliseconds. They are None if no run had started, or
    if the window is longer than MAX_DAYS_OF_PERCENTILES.
    """
    params: dict[str, Any] = {
        "environment_id": environment_id,
        "begin": window.begin,
        "end": window.end,
        "most": MAX_GROUPS,
    }
    is_listed = group_by in ("hour", *_SPANS)
    if is_listed or group_by == DAY_AND_TRIGGER:
        periods = window.hours if group_by == "hour" else window.spans(group_by)
        params["periods"], params["begins"] = map(list, zip(*periods, strict=True))
    has_durations = window.length <= MAX_DAYS_OF_PERCENTILES * _DAY
    rows = fetch_all(_statement(group_by, durations=has_durations), params)
    total, *items = map(_converted, rows)
    if is_listed:
        found = {row["key"]: row for row in items}
        items = [
            found.get(key, {**_NO_RUNS, "key": key, "day": key if group_by in _SPANS else None})
            for key in params["periods"]
        ]
        total["groups"] = len(items)
    return {"items": items, "total": total, "groups": total["groups"]}


def _converted(row: Row) -> Row:
    """Returns numbers in the API's types: PostgreSQL makes decimals of sums and quotients of whole numbers."""
    rate = row["success_rate"]
    p50, p95 = row["durations"] or (None, None)
    return {
        **row,
        "success_rate": None if rate is None else float(rate),
        "input_tokens": int(row["input_tokens"]),
        "output_tokens": int(row["output_tokens"]),
        "p50_ms": None if p50 is None else p50 // 1000,
        "p95_ms": None if p95 is None else p95 // 1000,
    }


def _statement(group_by: str, *, durations: bool) -> str:
    figures = _FIGURES.format(durations=_DURATIONS if durations else _NO_DURATIONS)
    if group_by == DAY_AND_TRIGGER:
        return _STATS_OF_PAIRS.format(day=_DAY_OF_RUN, figures=figures, runs=_RUNS_OF_WINDOW)
    periods = {"hour": _HOUR_OF_RUN, **dict.fromkeys(_SPANS, _DAY_OF_RUN)}
    key, table, column = _COLUMNS.get(group_by) or (periods[group_by], "", "")
    names = f"LEFT JOIN {table} n ON n.environment_id = %(environment_id)s AND n.id = shown.key"
    return _STATS.format(
        key=key,
        day=key if group_by in _SPANS else "NULL::date",
        figures=figures,
        runs=_RUNS_OF_WINDOW,
        most="key" if group_by in periods else "runs DESC, key",
        name=f"n.{column}" if table else "NULL",
        names=names if table else "",
    )


def _on_the_clock(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _hour(moment: datetime, zone: tzinfo) -> datetime:
    """Returns when the hour of a moment began on the zone's clocks."""
    on_the_clock = _on_the_clock(moment, zone)
    return moment - (on_the_clock - on_the_clock.replace(minute=0, second=0, microsecond=0))


def _first_day(day: date, span: str) -> date:
    """Returns the first day of the day's week, which begins on a Monday, or of its month; else the day itself."""
    if span == "week":
        return day - _DAY * day.weekday()
    return day.replace(day=1) if span == "month" else day


def _last_day(end: datetime, zone: tzinfo) -> date:
    return _on_the_clock(end - _MOMENT, zone).date()


# Each environment may have two statistics under way in a process, because a long window of a busy environment takes a
# thread, and a core of the database, for a second.
_UNDER_WAY = RequestLimit(2)


class StatsFilters(ApiFilterSet):
    groupBy = WordFilter(choices=[(each, each) for each in GROUPINGS], required=True)
    to = TimeFilter()
    period = WordFilter(choices=Budget.Period.choices)
    timezone = TimezoneFilter()
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter()


class StatsSerializer(RowSerializer):
    """The sums of some runs."""

    runs = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    timedOut = serializers.IntegerField()
    canceled = serializers.IntegerField()
    nothingNew = serializers.IntegerField()
    retries = serializers.IntegerField()
    successRatePct = serializers.FloatField(source="success_rate", allow_null=True)
    costUsd = MoneyField()
    notionalUsd = MoneyField()
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    p50DurationMs = serializers.IntegerField(source="p50_ms", allow_null=True)
    p95DurationMs = serializers.IntegerField(source="p95_ms", allow_null=True)


class _KeySerializer(RowSerializer):
    key = serializers.CharField(allow_null=True)
    name = serializers.CharField(allow_null=True)
    day = serializers.DateField(allow_null=True)


class GroupStatsSerializer(_KeySerializer, StatsSerializer):
    """The sums of the runs that have one key."""


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
    def list(self, request: Request, environment_id: UUID) -> Any:
        sent = StatsFilters.read(Run.objects.none(), request).values
        window = _window(
            sent["from"], sent["to"], sent["period"], sent["timezone"], sent["groupBy"]
        )
        sentence = "Two statistics are being worked out already: ask again when they are there."
        admit(_UNDER_WAY, environment_id, request, sentence)
        # Only reading may be tried twice: the request must be counted once, and the window must not change.
        stats = read_for(
            principal_of(request).id,
            lambda: run_stats(
                environment_id=environment_id, group_by=sent["groupBy"], window=window
            ),
        )
        return {"from": window.begin, "to": window.end, **stats}


def _window(
    begin: datetime | None, end: datetime | None, period: str | None, timezone: str, group_by: str
) -> Window:
    if begin and period:
        raise Invalid({"from": ["Must not be given together with `period`."]})
    end = end or database_now()
    for name, moment in (("from", begin), ("to", end)):
        # Python knows no times outside of these years, which hours and days of a zone might reach.
        if moment and not 1 < moment.year < 9999:
            raise Invalid({name: ["Too far away."]})
    window = Window.of(begin, end, timezone, period, group_by)
    if window.begin >= window.end:
        raise Invalid({"to": ["Must be later than `from`."]})
    most = MAX_DAYS_OF_HOURS if group_by == "hour" else MAX_DAYS
    if window.length > timedelta(days=most):
        raise Invalid({"from": [f"Must be at most {most} days before `to`."]})
    return window
