"""Finds out in the scheduler which triggers are late: a due time passed, and no run succeeded in time.

A due time counts even if it made no run. A trigger is checked when its `check_at` has come. If it was late and has
succeeded before the check, one closed incident records that.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final
from uuid import UUID

from notices.incidents import Finding, Past, change_incidents, tell_past
from notices.states import Kind
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, execute, fetch_all
from pipedai.turns import due_rows, in_time
from triggers.explain.answers import zoned_words
from triggers.schedules.cron import DueTimes

log = get_logger(__name__)

# A late trigger is checked again after this time, even if no event says that a run succeeded. The same holds for a
# trigger whose schedule can't be worked out, or whose environment is paused.
_LOOK_AGAIN: Final = timedelta(minutes=5)

# Joins the tick rows that decide about the first due time after the time `since.at` of a trigger `t`, and names the
# columns that `_first_due` reads of them. `later` is the first row after that time. `around` is the last row up to it,
# which may stand for several due times, some of them after that time.
_DUE_TICKS: Final = """
LEFT JOIN LATERAL (
    SELECT tick_at, run_id FROM tick WHERE trigger_id = t.id AND tick_at > since.at
    ORDER BY tick_at LIMIT 1) later ON true
LEFT JOIN LATERAL (
    SELECT last_tick_at FROM tick WHERE trigger_id = t.id AND tick_at <= since.at
    ORDER BY tick_at DESC LIMIT 1) around ON true
"""
_DUE_COLUMNS: Final = "later.tick_at AS later_at, later.run_id, around.last_tick_at AS around_until"

_TURNS = due_rows(
    "trigger_health", waits="check_at IS NOT NULL", order="check_at", key="trigger_id"
)

# Reads, after the rows were locked, what decides whether each trigger is late. Due times count if they are later than
# `since`: the last success, or else the time at which the trigger was enabled or created.
_READ = f"""
SELECT h.trigger_id, h.environment_id, h.late_since, h.check_at, t.name, t.schedule, t.timezone, t.run_once_at,
    t.next_run_at, t.success_deadline_seconds AS deadline, won.ended_at AS succeeded_at, since.at AS since,
    t.enabled AND t.deleted_at IS NULL AND t.success_deadline_seconds IS NOT NULL AS is_watched,
    e.paused_at IS NOT NULL AS is_paused, {_DUE_COLUMNS}, {NOW} AS now
FROM trigger_health h JOIN trigger t ON t.id = h.trigger_id JOIN environment e ON e.id = h.environment_id
LEFT JOIN LATERAL (
    SELECT ended_at FROM run
    WHERE trigger_id = h.trigger_id AND status = 'succeeded' AND ended_at >= coalesce(h.counts_from, '-infinity')
    ORDER BY ended_at DESC LIMIT 1) won ON true
CROSS JOIN LATERAL (SELECT coalesce(won.ended_at, h.counts_from, t.created_at) AS at) since
{_DUE_TICKS}
WHERE h.trigger_id = ANY(%(ids)s)
"""  # noqa: S608

_WRITE = """
UPDATE trigger_health h SET late_since = n.late_since, check_at = n.check_at
FROM unnest(%(ids)s::uuid[], %(late)s::timestamptz[], %(checks)s::timestamptz[]) AS n (id, late_since, check_at)
WHERE h.trigger_id = n.id
"""

# At most this many intervals between two successes of a trigger are looked at, the latest ones, because for each the
# schedule may have to be worked out.
_MOST_GAPS: Final = 1_000

# Finds the intervals between two successes, from `since` to `until`, that were longer than the deadline and ended after
# `check_at`. The trigger can't have become late before its `check_at`. The first interval begins at the last success up
# to `check_at`, or else when the trigger was enabled or created. Lateness with an incident began before `told_until`.
_GAPS = f"""
SELECT t.id AS trigger_id, t.environment_id, t.name, t.schedule, t.timezone, t.run_once_at, t.next_run_at,
    t.success_deadline_seconds AS deadline, since.at AS since, gap.until, {_DUE_COLUMNS}
FROM unnest(%(ids)s::uuid[], %(checks)s::timestamptz[], %(told)s::timestamptz[]) AS l (id, check_at, told_until)
JOIN trigger t ON t.id = l.id JOIN trigger_health h ON h.trigger_id = t.id
CROSS JOIN LATERAL (
    SELECT coalesce(max(ended_at), h.counts_from, t.created_at) AS at FROM run
    WHERE trigger_id = t.id AND status = 'succeeded' AND ended_at <= l.check_at
        AND ended_at >= coalesce(h.counts_from, '-infinity')) base
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT ended_at AS until, lag(ended_at, 1, base.at) OVER (ORDER BY ended_at) AS since FROM run
        WHERE trigger_id = t.id AND status = 'succeeded' AND ended_at > greatest(l.check_at, base.at)) won
    WHERE until > since + make_interval(secs => t.success_deadline_seconds)
        AND since >= coalesce(l.told_until, '-infinity')
    ORDER BY until DESC LIMIT {_MOST_GAPS}) gap
CROSS JOIN LATERAL (SELECT gap.since AS at) since
{_DUE_TICKS}
ORDER BY t.id, gap.until
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The result for a trigger: the due time since which it is late, or None, and when to check it again, or None."""

    late_since: datetime | None
    check_at: datetime | None


def find_late_triggers(*, limit: int = 200, now: datetime | None = None) -> int:
    """Checks up to `limit` triggers whose `check_at` has come, and returns how many."""
    return _TURNS.take(partial(_check, now=now), limit=limit, now=now)


def _check(due: list[Row], now: datetime | None) -> int:
    rows = fetch_all(_READ, {"ids": [row["id"] for row in due], "now": now})
    verdicts = {row["trigger_id"]: _judge(row) for row in in_time(rows)}
    params = {
        "ids": list(verdicts),
        "late": [each.late_since for each in verdicts.values()],
        "checks": [each.check_at for each in verdicts.values()],
    }
    execute(_WRITE, params)
    _tell(rows[: len(verdicts)], verdicts, now)
    return len(verdicts)


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
    changes = partial(change_incidents, Kind.TRIGGER_LATE, now=now)
    changes(recovered=recovered, withdrawn=withdrawn)
    _tell_missed([row for row in rows if row["is_watched"] and not row["is_paused"]], now)
    changes(begun=begun)


def _has_recovered(row: Row) -> bool:
    """Returns whether a run has succeeded since the trigger became late. A change of settings also ends lateness."""
    was_late, succeeded_at = row["late_since"], row["succeeded_at"]
    return bool(row["is_watched"] and was_late and succeeded_at and succeeded_at >= was_late)


def _judge(row: Row) -> _Verdict:
    if not row["is_watched"]:
        return _Verdict(None, None)
    if row["is_paused"]:
        # No incident is opened while the environment is paused. The trigger is checked again once it is resumed.
        return _Verdict(None, row["now"] + _LOOK_AGAIN)
    try:
        due = _first_due(row)
    except Exception as error:
        _log_failure(row, error)
        return _Verdict(row["late_since"], row["now"] + _LOOK_AGAIN)
    if due is None:
        return _Verdict(None, None)
    late_from = due + _deadline(row)
    if late_from > row["now"]:
        return _Verdict(None, late_from)
    return _Verdict(due, row["now"] + _LOOK_AGAIN)


def _finding(row: Row, late_since: datetime) -> Finding:
    due = zoned_words(late_since, row["timezone"])
    message = f"No run succeeded within {row['deadline']:,} s after the due time {due}."
    run_id = row["run_id"] if late_since == row["later_at"] else None
    return Finding(row["environment_id"], row["trigger_id"], row["name"], message, run_id)


def _tell_missed(rows: list[Row], now: datetime | None) -> None:
    """Announces past lateness: triggers that were late and succeeded after their `check_at`. `rows` has the triggers as
    they were before the check. Call it in the transaction that has locked them.
    """
    succeeded = [
        row for row in rows if row["succeeded_at"] and row["succeeded_at"] > row["check_at"]
    ]
    if not succeeded:
        return
    params = {
        "ids": [row["trigger_id"] for row in succeeded],
        "checks": [row["check_at"] for row in succeeded],
        "told": [row["late_since"] for row in succeeded],
    }
    gaps = groupby(fetch_all(_GAPS, params), key=itemgetter("trigger_id"))
    past = [found for _, each in gaps if (found := _past(list(each)))]
    tell_past(Kind.TRIGGER_LATE, past, now=now)


def _past(gaps: list[Row]) -> Past | None:
    """Returns the lateness within the gaps of one trigger, from the first one's beginning to the last one's end."""
    late = [
        (gap, due) for gap in gaps if (due := _due(gap)) and due + _deadline(gap) < gap["until"]
    ]
    if not late:
        return None
    (first, due), (last, _) = late[0], late[-1]
    zone = first["timezone"]
    message = (
        f"No run succeeded within {first['deadline']:,} s after the due time {zoned_words(due, zone)}. "
        + (f"It happened {len(late):,} times until a" if len(late) > 1 else "A")
        + f" run succeeded at {zoned_words(last['until'], zone)}, before a scheduler noticed."
    )
    run_id = first["run_id"] if due == first["later_at"] else None
    finding = Finding(first["environment_id"], first["trigger_id"], first["name"], message, run_id)
    return Past(finding, due + _deadline(first), last["until"])


def _due(gap: Row) -> datetime | None:
    try:
        return _first_due(gap)
    except Exception as error:
        _log_failure(gap, error)
        return None


def _deadline(row: Row) -> timedelta:
    return timedelta(seconds=row["deadline"])


def _first_due(row: Row) -> datetime | None:
    """Returns the first due time after `since`, from the tick rows or else from the schedule; None if there is none.
    `row` has _DUE_COLUMNS, `since`, `next_run_at` and what DueTimes reads. Raises an error for a bad schedule.
    """
    since: datetime = row["since"]
    until: datetime | None = row["around_until"]
    later: datetime | None = row["later_at"]
    following: datetime | None = row["next_run_at"]
    if until is not None and until > since:
        # The tick row stands for several due times, some before `since` and some after it.
        return min(DueTimes.of(row).next_after(since) or until, until)
    if later is not None:
        return later
    if following is None or following > since:
        return following
    # A run succeeded after `next_run_at`, about which no scheduler has decided yet.
    return DueTimes.of(row).next_after(since)


def _log_failure(row: Row, error: Exception) -> None:
    """Logs a schedule that can't be worked out. The trigger keeps its state, and the other checks go on."""
    log.error(
        "trigger.lateness_failed",
        trigger_id=str(row["trigger_id"]),
        schedule=row["schedule"],
        timezone=row["timezone"],
        error=f"{type(error).__name__}: {error}",
    )
