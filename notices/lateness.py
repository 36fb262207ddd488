"""Finds out in the scheduler which triggers are late: a due time passed, and no run succeeded in time (SPEC §14).

A due time counts even if it made no run, or if no scheduler has decided about it yet. Each watched trigger has a time
(`check_at`) before which it can't become late. A scheduler checks only triggers whose `check_at` has come. It locks
their rows, so that no other scheduler checks them too.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction

from notices.incidents import Finding, change_incidents
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, execute, fetch_all
from triggers.schedules import cron

log = get_logger(__name__)

# A late trigger is checked again after this time, even if no event said that a run succeeded. A trigger whose schedule
# can't be worked out is checked again after the same time.
_LOOK_AGAIN: Final = timedelta(minutes=5)

_LOCK_DUE = f"""
SELECT trigger_id FROM trigger_health WHERE check_at <= {NOW} ORDER BY check_at LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608

# Reads what decides about each trigger, after the rows were locked. Due times count if they are later than `since`, the
# last success or else the time at which the trigger was enabled or created. `later` is the first tick row after
# `since`. `around` is the last one up to `since`; it may stand for several due times, some of them after `since`.
_READ = f"""
SELECT h.trigger_id, h.environment_id, h.late_since, t.name, t.schedule, t.timezone, t.next_run_at,
    t.success_deadline_seconds AS deadline, won.ended_at AS succeeded_at, since.at AS since,
    t.enabled AND t.deleted_at IS NULL AND t.success_deadline_seconds IS NOT NULL AS is_watched,
    later.tick_at AS later_at, later.run_id, around.last_tick_at AS around_until, {NOW} AS now
FROM trigger_health h JOIN trigger t ON t.id = h.trigger_id
LEFT JOIN LATERAL (
    SELECT ended_at FROM run
    WHERE trigger_id = h.trigger_id AND status = 'succeeded' AND ended_at >= coalesce(h.counts_from, '-infinity')
    ORDER BY ended_at DESC LIMIT 1) won ON true
CROSS JOIN LATERAL (SELECT coalesce(won.ended_at, h.counts_from, t.created_at) AS at) since
LEFT JOIN LATERAL (
    SELECT tick_at, run_id FROM tick WHERE trigger_id = h.trigger_id AND tick_at > since.at
    ORDER BY tick_at LIMIT 1) later ON true
LEFT JOIN LATERAL (
    SELECT last_tick_at FROM tick WHERE trigger_id = h.trigger_id AND tick_at <= since.at
    ORDER BY tick_at DESC LIMIT 1) around ON true
WHERE h.trigger_id = ANY(%(ids)s)
"""  # noqa: S608

_WRITE = """
UPDATE trigger_health h SET late_since = n.late_since, check_at = n.check_at
FROM unnest(%(ids)s::uuid[], %(late)s::timestamptz[], %(checks)s::timestamptz[]) AS n (id, late_since, check_at)
WHERE h.trigger_id = n.id
"""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The result for a trigger: the due time since which it is late, or None, and when to check it again, or None."""

    late_since: datetime | None
    check_at: datetime | None


def find_late_triggers(*, limit: int = 200, now: datetime | None = None) -> int:
    """Checks up to `limit` triggers whose `check_at` has come, and opens and closes their incidents. Returns how many
    it checked.
    """
    with transaction.atomic():
        ids = [row["trigger_id"] for row in fetch_all(_LOCK_DUE, {"limit": limit, "now": now})]
        if not ids:
            return 0
        rows = fetch_all(_READ, {"ids": ids, "now": now})
        verdicts = {row["trigger_id"]: _judge(row) for row in rows}
        params = {
            "ids": list(verdicts),
            "late": [each.late_since for each in verdicts.values()],
            "checks": [each.check_at for each in verdicts.values()],
        }
        execute(_WRITE, params)
        _tell(rows, verdicts, now)
    return len(ids)


def _tell(rows: list[Row], verdicts: dict[UUID, _Verdict], now: datetime | None) -> None:
    begun: list[Finding] = []
    recovered: list[UUID] = []
    withdrawn: list[UUID] = []
    for row in rows:
        late_since = verdicts[row["trigger_id"]].late_since
        if late_since and row["late_since"] is None:
            begun.append(_finding(row, late_since))
        elif row["late_since"] and late_since is None:
            over = recovered if _has_recovered(row) else withdrawn
            over.append(row["trigger_id"])
    change_incidents(
        Kind.TRIGGER_LATE,
        SubjectType.TRIGGER,
        begun=begun,
        recovered=recovered,
        withdrawn=withdrawn,
        now=now,
    )


def _has_recovered(row: Row) -> bool:
    """Returns whether a late trigger is no longer late because a run has succeeded. The other reason is a change of its
    settings.
    """
    succeeded_at = row["succeeded_at"]
    return bool(row["is_watched"] and succeeded_at and succeeded_at >= row["late_since"])


def _judge(row: Row) -> _Verdict:
    if not row["is_watched"]:
        return _Verdict(None, None)
    try:
        due = _first_due(row)
    except Exception as error:
        # A schedule that can't be worked out must not stop the checks of other triggers, so this trigger keeps its
        # state.
        log.error(
            "trigger.lateness_failed",
            trigger_id=str(row["trigger_id"]),
            schedule=row["schedule"],
            timezone=row["timezone"],
            error=f"{type(error).__name__}: {error}",
        )
        return _Verdict(row["late_since"], row["now"] + _LOOK_AGAIN)
    if due is None:
        return _Verdict(None, None)
    late_from = due + timedelta(seconds=row["deadline"])
    if late_from > row["now"]:
        return _Verdict(None, late_from)
    return _Verdict(due, row["now"] + _LOOK_AGAIN)


def _first_due(row: Row) -> datetime | None:
    """Returns the first due time after `since`, or None if there is none. It comes from the tick rows if a scheduler
    has decided about it, and otherwise from the trigger's schedule.
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


def _finding(row: Row, late_since: datetime) -> Finding:
    message = (
        f"No run succeeded within {row['deadline']:,} s after the due time {iso_time(late_since)}."
    )
    run_id = row["run_id"] if late_since == row["later_at"] else None
    return Finding(row["environment_id"], row["trigger_id"], row["name"], message, run_id)
