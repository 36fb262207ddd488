"""Tells that a trigger was late and has succeeded again before any scheduler looked, for example because none ran.

Such a lateness becomes one incident that is closed from the beginning. It says from when until when the trigger was
late, according to the tick ledger and the runs.
"""

from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Final

from notices.due_times import DUE_COLUMNS, DUE_TICKS, first_due
from notices.incidents import Finding, Past, tell_past
from notices.states import Kind, SubjectType
from pipedai.api.renderers import iso_time
from pipedai.logs import get_logger
from pipedai.sql import Row, fetch_all

log = get_logger(__name__)

# At most so many times between two successes are looked at for one trigger, the latest ones, because each may need the
# schedule to be worked out.
_MOST_GAPS: Final = 1_000

# Finds the times between two successes, `since` and `until`, that were longer than the deadline and ended after
# `check_at`. A trigger can't have become late before its `check_at`. `since` of the first one is the last success up to
# `check_at`, or else the time at which the trigger was enabled or created. A lateness that has an incident already
# began before `told_until`.
_GAPS = f"""
SELECT t.id AS trigger_id, t.environment_id, t.name, t.schedule, t.timezone, t.next_run_at,
    t.success_deadline_seconds AS deadline, since.at AS since, gap.until, {DUE_COLUMNS}
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
{DUE_TICKS}
ORDER BY t.id, gap.until
"""  # noqa: S608


def tell_missed(rows: list[Row], now: datetime | None) -> None:
    """Tells about those of these triggers that were late and succeeded after their `check_at`. It takes no statement if
    no trigger succeeded since.

    `rows` has the triggers that a scheduler looks at, as they were before. Call it in the transaction that has locked
    them.
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
    tell_past(Kind.TRIGGER_LATE, SubjectType.TRIGGER, past, now=now)


def _past(gaps: list[Row]) -> Past | None:
    """Returns the lateness within the gaps of one trigger, from the first one's beginning to the last one's end."""
    late = [
        (gap, due) for gap in gaps if (due := _due(gap)) and due + _deadline(gap) < gap["until"]
    ]
    if not late:
        return None
    (first, due), (last, _) = late[0], late[-1]
    message = (
        f"No run succeeded within {first['deadline']:,} s after the due time {iso_time(due)}. "
        + (f"It happened {len(late):,} times until a" if len(late) > 1 else "A")
        + f" run succeeded at {iso_time(last['until'])}, before a scheduler noticed."
    )
    run_id = first["run_id"] if due == first["later_at"] else None
    finding = Finding(first["environment_id"], first["trigger_id"], first["name"], message, run_id)
    return Past(finding, due + _deadline(first), last["until"])


def _due(gap: Row) -> datetime | None:
    try:
        return first_due(gap)
    except Exception as error:
        # A schedule that can't be worked out must not stop the checks of other triggers.
        log.error(
            "trigger.lateness_failed",
            trigger_id=str(gap["trigger_id"]),
            schedule=gap["schedule"],
            timezone=gap["timezone"],
            error=f"{type(error).__name__}: {error}",
        )
        return None


def _deadline(gap: Row) -> timedelta:
    return timedelta(seconds=gap["deadline"])
