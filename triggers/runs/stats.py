"""Sums up an environment's ended runs by trigger, worker, model, day, or day and trigger, in one statement (SPEC §12,
§28).
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any
from uuid import UUID

from pipedai.clocks import zone_of
from pipedai.sql import Row, fetch_all, without_sorting
from triggers.budgets.periods import midnight, period_around
from triggers.runs.overview import SUCCESS_RATE

# The most groups that an answer has. Nothing else limits their number: the triggers of an environment may be deleted
# and made anew, and workers report any name as the model.
MAX_GROUPS = 1_000
DEFAULT_DAYS = 30
MAX_DAYS = 400
# A longer window has no percentiles, because PostgreSQL must sort the durations of all its runs for them.
MAX_DAYS_OF_PERCENTILES = 93

_DAY = timedelta(days=1)
_MOMENT = timedelta(microseconds=1)

# For each way to group by a column of runs: the key, and the table and column that have the names of the keys.
_COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "trigger": ("r.trigger_id", "trigger", "name"),
    "worker": ("r.worker_id", "worker", "label"),
    "model": ("r.model", "", ""),
}
DAY_AND_TRIGGER = "day,trigger"
GROUPINGS = (*_COLUMNS, "day", DAY_AND_TRIGGER)

# The worker of a run tells whether a subscription paid for it.
_PAYER = (
    "LEFT JOIN worker payer ON payer.id = r.worker_id AND payer.environment_id = r.environment_id"
)

_RUNS_OF_WINDOW = f"""
FROM run r {_PAYER}
WHERE r.environment_id = %(environment_id)s AND r.ended_at IS NOT NULL
    AND r.ended_at >= %(begin)s AND r.ended_at < %(end)s"""

# Reads the runs of each day between the day's beginning and end, which the caller works out. Converting the time of
# each run to a zone would take PostgreSQL a third of the whole statement. The days without runs are included. The runs
# of a day are read in order, so that PostgreSQL starts to read the index at the day. Otherwise it might read all runs
# of an environment in which it expects few, and compare each with each day.
_RUNS_OF_DAYS = """
FROM unnest(%(days)s::date[], %(begins)s::timestamptz[], %(ends)s::timestamptz[]) AS d (key, begin, until)
LEFT JOIN LATERAL (
    SELECT * FROM run
    WHERE environment_id = %(environment_id)s AND ended_at IS NOT NULL AND ended_at >= d.begin AND ended_at < d.until
    ORDER BY ended_at) r ON true"""

# The percentiles are nearest-rank ones, so each is the time that some run really took. They are in microseconds,
# because whole numbers are sorted faster than intervals. PostgreSQL leaves out the runs that never started, whose
# duration is NULL.
_LAST = "(date_part('epoch', r.ended_at - r.started_at) * 1000000)::bigint"
_DURATIONS = f"""
percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (
    ORDER BY CASE WHEN r.active_ms IS NULL THEN {_LAST} ELSE r.active_ms * 1000 + coalesce({_LAST}, 0) END)"""
_NO_DURATIONS = "NULL::bigint[]"

# The total is the grouping set without a key. It comes first, then the groups with the most runs, or the days in their
# order. All columns of `run` are in the index `run_ended`, so PostgreSQL need not read the runs themselves.
_STATS = """
WITH sums AS (
    SELECT grouping({key}) = 1 AS is_total, {key} AS key, {day} AS day, count(r.ended_at) AS runs,
        count(*) FILTER (WHERE r.status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE r.status = 'failed') AS failed,
        count(*) FILTER (WHERE r.status = 'timed_out') AS timed_out,
        count(*) FILTER (WHERE r.status = 'canceled') AS canceled,
        count(*) FILTER (WHERE r.source = 'retry') AS retries,
        {success_rate} AS success_rate,
        coalesce(sum(r.cost_usd), 0) AS cost_usd,
        coalesce(sum(r.cost_usd) FILTER (WHERE r.worker_id IN (
            SELECT id FROM worker WHERE environment_id = %(environment_id)s AND auth_mode = 'claude_max')), 0)
            AS notional_usd,
        coalesce(sum(r.input_tokens), 0) AS input_tokens,
        coalesce(sum(r.output_tokens), 0) AS output_tokens,
        {durations} AS durations
    {runs}
    GROUP BY GROUPING SETS (({keys}), ())),
shown AS (
    SELECT *, count(*) OVER () - 1 AS groups FROM sums ORDER BY is_total DESC, {most} LIMIT %(rows)s)
SELECT shown.*, {name} AS name FROM shown {names} ORDER BY is_total DESC, {order}
"""


@dataclass(frozen=True, slots=True)
class Window:
    begin: datetime
    end: datetime
    timezone: str

    @classmethod
    def of(
        cls, begin: datetime | None, end: datetime, timezone: str, period: str | None = None
    ) -> "Window":
        """Returns the window. Without `begin` it begins with the day or month, as `period` says, of the last moment
        before `end`. Without both it has DEFAULT_DAYS days, and the last of them is the day of that moment.
        """
        if begin is None and period:
            begin, _ = period_around(end - _MOMENT, period, timezone)
        elif begin is None:
            zone = zone_of(timezone)
            begin = midnight(_last_day(end, zone) - _DAY * (DEFAULT_DAYS - 1), zone)
        return cls(begin, end, timezone)

    @property
    def length(self) -> timedelta:
        """Returns the time by the zone's clocks: each day has 24 hours, even if the clocks change on it."""
        begin, end = (
            _on_the_clock(moment, zone_of(self.timezone)) for moment in (self.begin, self.end)
        )
        return end - begin

    @property
    def days(self) -> list[tuple[date, datetime, datetime]]:
        zone = zone_of(self.timezone)
        first = _on_the_clock(self.begin, zone).date()
        # If clocks go back over midnight, a short window may begin on a later date than the one on which it ends.
        last = max(first, _last_day(self.end, zone))
        dates = [first + _DAY * n for n in range((last - first).days + 1)]
        edges = [self.begin, *(midnight(each, zone) for each in dates[1:]), self.end]
        return [(day, *edge) for day, edge in zip(dates, pairwise(edges), strict=True)]


@dataclass(frozen=True, slots=True)
class Stats:
    """The sums of a window: one row for each group, one for all runs, and how many groups there are."""

    items: list[Row]
    total: Row
    groups: int


def run_stats(*, environment_id: UUID, group_by: str, window: Window) -> Stats:
    """Returns the sums of the runs that ended in the window, by the groups that `group_by`, one of GROUPINGS, names.

    The groups with the most runs come first, and there are MAX_GROUPS at most. Days come in their order instead, and a
    day without runs has zeros. By day and trigger, the groups are those with runs; the days come in their order, and of
    each day the triggers with the most runs first. In each row `p50_ms` and `p95_ms` are the median and the 95th
    percentile of the runs' durations in milliseconds. They are None if no run had started, or if the window is longer
    than MAX_DAYS_OF_PERCENTILES.
    """
    params: dict[str, Any] = {
        "environment_id": environment_id,
        "begin": window.begin,
        "end": window.end,
        "rows": MAX_GROUPS + 1,
    }
    is_by_day = group_by in ("day", DAY_AND_TRIGGER)
    if is_by_day:
        params["days"], params["begins"], params["ends"] = map(list, zip(*window.days, strict=True))
    has_durations = window.length <= MAX_DAYS_OF_PERCENTILES * _DAY
    with without_sorting() if is_by_day else nullcontext():
        rows = fetch_all(_statement(group_by, durations=has_durations), params)
    total, *items = map(_converted, rows)
    return Stats(items, total, total["groups"])


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
    of_pairs = group_by == DAY_AND_TRIGGER
    is_by_day = of_pairs or group_by == "day"
    key, table, column = _COLUMNS.get("trigger" if of_pairs else group_by, ("d.key", "", ""))
    names = f"LEFT JOIN {table} n ON n.environment_id = %(environment_id)s AND n.id = shown.key"
    most = "runs DESC, day, key" if of_pairs else "runs DESC, key"
    runs = _RUNS_OF_DAYS if is_by_day else _RUNS_OF_WINDOW
    return _STATS.format(
        key=key,
        keys=f"d.key, {key}" if of_pairs else key,
        day="d.key" if is_by_day else "NULL::date",
        success_rate=SUCCESS_RATE,
        durations=_DURATIONS if durations else _NO_DURATIONS,
        # A day without runs has no trigger.
        runs=runs.replace("LEFT JOIN", "JOIN") if of_pairs else runs,
        most="key" if group_by == "day" else most,
        order="day, runs DESC, key" if is_by_day else most,
        name=f"n.{column}" if table else "NULL",
        names=names if table else "",
    )


def _on_the_clock(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _last_day(end: datetime, zone: tzinfo) -> date:
    return _on_the_clock(end - _MOMENT, zone).date()
