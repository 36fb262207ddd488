"""Finds out in the scheduler which triggers are late: a due time passed, and no run succeeded in time (SPEC §14).

A due time counts even if it made no run, or if no scheduler has decided about it yet. Each watched trigger has a time
(`check_at`) before which it can't become late. A scheduler checks only triggers whose `check_at` has come. It locks
their rows, so that no other scheduler checks them too.

If no scheduler ran for a while, a trigger may have become late and succeeded meanwhile. `notices.missed_lateness` finds
that.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from django.db import transaction

from notices.due_times import DUE_COLUMNS, DUE_TICKS, first_due
from notices.incidents import Finding, change_incidents
from notices.missed_lateness import tell_missed
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, execute, fetch_all

log = get_logger(__name__)

# A late trigger is checked again after this time, even if no event said that a run succeeded. So is a trigger whose
# schedule can't be worked out, or whose environment is paused.
_LOOK_AGAIN: Final = timedelta(minutes=5)

_LOCK_DUE = f"""
SELECT trigger_id FROM trigger_health WHERE check_at <= {NOW} ORDER BY check_at LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608

# Reads what decides about each trigger, after the rows were locked. Due times count if they are later than `since`, the
# last success or else the time at which the trigger was enabled or created.
_READ = f"""
SELECT h.trigger_id, h.environment_id, h.late_since, h.check_at, t.name, t.schedule, t.timezone, t.next_run_at,
    t.success_deadline_seconds AS deadline, won.ended_at AS succeeded_at, since.at AS since,
    t.enabled AND t.deleted_at IS NULL AND t.success_deadline_seconds IS NOT NULL AS is_watched,
    e.paused_at IS NOT NULL AS is_paused, {DUE_COLUMNS}, {NOW} AS now
FROM trigger_health h JOIN trigger t ON t.id = h.trigger_id JOIN environment e ON e.id = h.environment_id
LEFT JOIN LATERAL (
    SELECT ended_at FROM run
    WHERE trigger_id = h.trigger_id AND status = 'succeeded' AND ended_at >= coalesce(h.counts_from, '-infinity')
    ORDER BY ended_at DESC LIMIT 1) won ON true
CROSS JOIN LATERAL (SELECT coalesce(won.ended_at, h.counts_from, t.created_at) AS at) since
{DUE_TICKS}
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
        was_late, late_since = row["late_since"], verdicts[row["trigger_id"]].late_since
        has_recovered = _has_recovered(row)
        if was_late and (has_recovered or late_since is None):
            (recovered if has_recovered else withdrawn).append(row["trigger_id"])
        if late_since and (has_recovered or was_late is None):
            begun.append(_finding(row, late_since))
    changes = partial(change_incidents, Kind.TRIGGER_LATE, SubjectType.TRIGGER, now=now)
    changes(recovered=recovered, withdrawn=withdrawn)
    tell_missed([row for row in rows if row["is_watched"] and not row["is_paused"]], now)
    changes(begun=begun)


def _has_recovered(row: Row) -> bool:
    """Returns whether the trigger was late and a run has succeeded since. The other reason for an end of the lateness
    is a change of the trigger's settings.
    """
    was_late, succeeded_at = row["late_since"], row["succeeded_at"]
    return bool(row["is_watched"] and was_late and succeeded_at and succeeded_at >= was_late)


def _judge(row: Row) -> _Verdict:
    if not row["is_watched"]:
        return _Verdict(None, None)
    if row["is_paused"]:
        # Nobody is alarmed while the environment is paused. Once it is resumed, the trigger is checked again.
        return _Verdict(None, row["now"] + _LOOK_AGAIN)
    try:
        due = first_due(row)
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


def _finding(row: Row, late_since: datetime) -> Finding:
    message = (
        f"No run succeeded within {row['deadline']:,} s after the due time {iso_time(late_since)}."
    )
    run_id = row["run_id"] if late_since == row["later_at"] else None
    return Finding(row["environment_id"], row["trigger_id"], row["name"], message, run_id)
