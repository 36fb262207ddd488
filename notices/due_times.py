"""Finds the first due time of a trigger after a given time, since which the trigger may be late (SPEC §14)."""

from datetime import datetime
from typing import Final

from pipedai.sql import Row
from triggers.schedules import cron

# Joins the tick rows that decide about the first due time after the time `since.at` of a trigger `t`, and names the
# columns that `first_due` reads of them. `later` is the first row after that time. `around` is the last row up to it,
# which may stand for several due times, some of them after that time.
DUE_TICKS: Final = """
LEFT JOIN LATERAL (
    SELECT tick_at, run_id FROM tick WHERE trigger_id = t.id AND tick_at > since.at
    ORDER BY tick_at LIMIT 1) later ON true
LEFT JOIN LATERAL (
    SELECT last_tick_at FROM tick WHERE trigger_id = t.id AND tick_at <= since.at
    ORDER BY tick_at DESC LIMIT 1) around ON true
"""
DUE_COLUMNS: Final = "later.tick_at AS later_at, later.run_id, around.last_tick_at AS around_until"


def first_due(row: Row) -> datetime | None:
    """Returns the first due time after `since`, or None if there is none. It comes from the tick rows if a scheduler
    has decided about it, and otherwise from the trigger's schedule.

    `row` has DUE_COLUMNS, `since`, and the trigger's `schedule`, `timezone` and `next_run_at`. Raises an error if the
    schedule can't be worked out.
    """
    since: datetime = row["since"]
    until: datetime | None = row["around_until"]
    later: datetime | None = row["later_at"]
    following: datetime | None = row["next_run_at"]
    if until is not None and until > since:
        # The tick row stands for several due times, and `since` lies between them.
        return until if row["schedule"] is None else min(_next(row, since), until)
    if later is not None:
        return later
    if following is None or following > since:
        return following
    # A run succeeded after `next_run_at`, about which no scheduler has decided yet, so the schedule tells the next due
    # time.
    return _next(row, since)


def _next(row: Row, after: datetime) -> datetime:
    return cron.Schedule(row["schedule"], row["timezone"]).next_after(after)
