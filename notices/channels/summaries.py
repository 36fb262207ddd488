"""Queues the summaries of channels: once a day, what became of all due times and runs since the last one.

A scheduler claims a channel by setting the time of its next summary, in the transaction that queues the notices.
"""

import json
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from notices.attention import find_attention
from notices.channels.announcements import Announcement
from notices.channels.queueing import queue_unlimited
from notices.states import SUMMARY
from pipedai.clocks import zone_of
from pipedai.links import link_to_page
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_one, fetch_row
from pipedai.turns import due_rows
from triggers.budgets.spending import SPENT
from triggers.schedules.cron import Schedule
from triggers.states import TERMINAL, FaultClass, Status

# A summary ends this long before it is made, and before the start of the oldest open transaction that has written
# something, so that no transaction can add to its time later. The next summary covers the rest.
SETTLED: Final = timedelta(seconds=30)
# A summary lists at most this many items of a kind, and counts the others.
MOST_ITEMS: Final = 20

_TAKE: Final = f"""
SELECT c.id, c.environment_id, c.kind, c.emails, c.host, c.summary::text AS summary, c.summary_due_at, c.summary_since,
    e.deleted_at IS NOT NULL AS is_gone, {NOW} AS now, (
        SELECT statement_timestamp() - min(xact_start) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()) AS longest_open
FROM channel c JOIN environment e ON e.id = c.environment_id
WHERE c.id = %(id)s AND c.summary_due_at <= {NOW} FOR NO KEY UPDATE OF c SKIP LOCKED
"""  # noqa: S608
_TURNS: Final = due_rows(
    "channel", waits="summary_due_at IS NOT NULL", order="summary_due_at", lock=False
)

_MOVE_ON: Final = """
UPDATE channel SET summary_due_at = %(due_at)s, summary_since = %(since)s
WHERE id = %(id)s AND summary_due_at = %(was_due_at)s
"""

# The due times of each trigger that made no run, by decision. A row that began before `since`, or ends after `until`,
# is returned apart (`across`), because only a part of it counts. The index `tick_without_run` has the first condition.
_WITHOUT_RUN: Final = """
SELECT t.id, t.name, t.schedule, t.timezone, k.decision,
    coalesce(sum(greatest(k.missed_count, 1)) FILTER (WHERE NOT k.is_across), 0)::int AS n,
    min(k.from_at) AS first_at, max(least(k.last_tick_at, %(until)s)) AS last_at,
    array_agg(k.from_at ORDER BY k.tick_at) FILTER (WHERE k.is_across) AS across_from,
    array_agg(k.last_tick_at ORDER BY k.tick_at) FILTER (WHERE k.is_across) AS across_to,
    array_agg(k.missed_count ORDER BY k.tick_at) FILTER (WHERE k.is_across) AS across_counts
FROM (
    SELECT *, decided_at < %(since)s OR last_tick_at >= %(until)s AS is_across,
        CASE WHEN decided_at < %(since)s THEN greatest(tick_at, %(since)s) ELSE tick_at END AS from_at
    FROM tick
    WHERE environment_id = %(environment_id)s AND run_id IS NULL
        AND greatest(decided_at, last_tick_at) >= %(since)s AND decided_at < %(until)s
    OFFSET 0) k
JOIN trigger t ON t.id = k.trigger_id
WHERE t.deleted_at IS NULL OR t.deleted_at >= %(since)s
GROUP BY t.id, k.decision ORDER BY t.name, t.id, k.decision
"""

_ENDED: Final = [status.value for status in TERMINAL]
_UNFINISHED: Final = [status for status in Status.values if status not in TERMINAL]
_SCHEDULED: Final = """
    SELECT count(*) FROM run
    WHERE environment_id = %(environment_id)s AND source = 'schedule'
        AND queued_at >= %(since)s AND queued_at < %(until)s"""
# The number of due times that made a run, which is the number of runs that schedules have queued. An index contains the
# ended ones, so that PostgreSQL need not read their rows; there are few others. The states and fault classes are named
# one by one, because otherwise PostgreSQL may read all runs of that time by another index.
_FIRED: Final = f"""
SELECT sum(n)::int AS n FROM (
    SELECT ({_SCHEDULED} AND ended_at IS NOT NULL AND status = s.status AND fault_class = f.fault_class) AS n
    FROM unnest(ARRAY{_ENDED}) s (status), unnest(ARRAY{FaultClass.values}) f (fault_class)
    UNION ALL
    SELECT ({_SCHEDULED} AND ended_at IS NULL AND status = s.status)
    FROM unnest(ARRAY{_UNFINISHED}) s (status)) counted
"""  # noqa: S608

_ENDED_IN_WINDOW: Final = (
    "r.environment_id = %(environment_id)s AND r.ended_at >= %(since)s AND r.ended_at < %(until)s"
)
# A run that was retried is no final outcome, but its cost counts.
_RUNS: Final = f"""
SELECT count(*) FILTER (WHERE r.status = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE r.status = 'failed' AND NOT r.retried) AS failed,
    count(*) FILTER (WHERE r.status = 'timed_out' AND NOT r.retried) AS "timedOut",
    count(*) FILTER (WHERE r.status = 'canceled' AND r.ended_by <> 'late_result') AS canceled,
    (SELECT count(*) FROM run u WHERE u.environment_id = %(environment_id)s AND u.ended_at IS NULL) AS unfinished,
    count(*) FILTER (WHERE r.nothing_new) AS "nothingNew", coalesce(sum(r.cost_usd), 0) AS "costUsd"
FROM run r WHERE {_ENDED_IN_WINDOW}
"""  # noqa: S608

_FAILURES: Final = f"""
SELECT r.id AS "runId", r.trigger_id AS "triggerId", t.name AS "triggerName", r.status, r.ended_at AS "endedAt",
    r.fault_class AS "faultClass", left(coalesce(x.error_message, r.short_message, ''), 300) AS error
FROM run r JOIN trigger t ON t.id = r.trigger_id LEFT JOIN run_text x ON x.run_id = r.id
WHERE {_ENDED_IN_WINDOW} AND r.status IN ('failed', 'timed_out') AND NOT r.retried
ORDER BY r.ended_at DESC, r.id DESC LIMIT {MOST_ITEMS}
"""  # noqa: S608

# What each budget has used in the last two of its windows that the summary's time touches; a daily summary at seven
# o'clock touches those of yesterday and of today. A budget without a claimed run has used nothing.
_BUDGETS: Final = f"""
SELECT b.id, b.name, b.period, b.timezone, b.limit_usd AS "limitUsd", b.limit_runs AS "limitRuns",
    w.starts_at AS "startsAt", {SPENT} AS "spentUsd", coalesce(w.runs, 0) AS runs
FROM budget b LEFT JOIN LATERAL (
    SELECT * FROM budget_window
    WHERE budget_id = b.id AND generation = b.generation AND ends_at > %(since)s AND starts_at < %(until)s
    ORDER BY starts_at DESC LIMIT 2) w ON true
WHERE b.environment_id = %(environment_id)s AND b.deleted_at IS NULL
ORDER BY b.created_at, b.id, w.starts_at
"""  # noqa: S608


def next_summary(summary: Row, after: datetime) -> datetime:
    """Returns when a summary is due next. It is sent once a day, even if the clock change skips or repeats its time."""
    hour, minute = map(int, summary["at"].split(":"))
    days = ",".join(summary["weekdays"])
    # A zone that this machine does not know any more counts as UTC.
    zone = str(zone_of(summary["timezone"]))
    return Schedule(f"{minute} {hour} * * {days}", zone).next_after(after)


def send_summaries(*, limit: int = 10, now: datetime | None = None) -> int:
    """Queues the summaries of up to `limit` channels that are due, each in a transaction of its own, and returns how
    many. After days without a scheduler a channel gets only one. A summary takes a constant number of statements.
    """
    return _TURNS.each(partial(_summarize, now=now), limit=limit, now=now)


def _summarize(due: Row, now: datetime | None) -> bool:
    """Returns whether it queued a summary. Another scheduler may have done so, or may be doing so."""
    channel = fetch_one(_TAKE, {"id": due["id"], "now": now})
    if channel is None:
        return False
    settings, since = json.loads(channel["summary"]), channel["summary_since"]
    settled = max(SETTLED, channel["longest_open"] or SETTLED)
    until = max(since, channel["now"] - settled)
    due_at = None if channel["is_gone"] else next_summary(settings, channel["now"])
    moved = {"id": channel["id"], "was_due_at": channel["summary_due_at"], "due_at": due_at}
    execute(_MOVE_ON, {**moved, "since": due_at and until})
    if due_at is not None:
        told = _told(channel["environment_id"], since, until, settings["timezone"], now)
        about = {"summary": told}
        queue_unlimited(
            channel, Announcement(channel["environment_id"], SUMMARY, "", channel["now"], about)
        )
    return True


def _told(
    environment_id: UUID, since: datetime, until: datetime, timezone: str, now: datetime | None
) -> Row:
    """Returns what the summary's notices tell, as JSON under the API's names."""
    window = {"environment_id": environment_id, "since": since, "until": until}
    without = [
        counted
        for row in fetch_all(_WITHOUT_RUN, window)
        if (counted := {**row, "n": row["n"] + _across(row, until)})["n"]
    ]
    number = sum(row["n"] for row in without)
    runs = fetch_row(_RUNS, window)
    failed = fetch_all(_FAILURES, window)
    waiting, total = find_attention(environment_id, now=now)
    budgets = fetch_all(_BUDGETS, window)
    return {
        "since": since,
        "until": until,
        "timezone": timezone,
        "due": number + fetch_row(_FIRED, window)["n"],
        "runs": {
            key: runs[key]
            for key in ("succeeded", "nothingNew", "failed", "timedOut", "canceled", "unfinished")
        },
        "costUsd": runs["costUsd"],
        "budgets": {"total": len(budgets), "items": budgets[:MOST_ITEMS]},
        "failures": {
            "total": runs["failed"] + runs["timedOut"],
            "items": [{**row, "link": link_to_page("run", row["runId"])} for row in failed],
        },
        "withoutRun": {
            "total": number,
            "groups": len(without),
            "items": [_without_run(row) for row in without[:MOST_ITEMS]],
        },
        "attention": {
            "total": total,
            "items": [_waiting(row, environment_id) for row in waiting[:MOST_ITEMS]],
        },
    }


def _across(row: Row, until: datetime) -> int:
    """Returns how many due times within the window those tick rows stand for that begin before it or end after it. The
    trigger's present schedule decides; if it can't be worked out any more, a row counts as one due time.
    """
    count = 0
    parts = (row[f"across_{part}"] or () for part in ("from", "to", "counts"))
    for first, last, missed in zip(*parts, strict=True):
        end = min(last, until - timedelta(microseconds=1))
        try:
            schedule = Schedule(row["schedule"], row["timezone"])
            begin = schedule.next_after(first - timedelta(microseconds=1))
            within = schedule.ticks(begin, end).earlier_count + 1 if begin <= end else 0
        except Exception:
            within = 1
        count += min(within, max(missed, 1))
    return count


def _without_run(row: Row) -> Row:
    return {
        "triggerId": row["id"],
        "triggerName": row["name"],
        "decision": row["decision"],
        "count": row["n"],
        "firstAt": row["first_at"],
        "lastAt": row["last_at"],
        "link": link_to_page("trigger", row["id"]),
    }


def _waiting(row: Row, environment_id: UUID) -> Row:
    page, about = row["subject"]["type"], row["subject"]["id"]
    if row["run_id"] and page != "approval":
        page, about = "run", row["run_id"]
    return {
        "kind": row["kind"],
        "since": row["since"],
        "summary": row["summary"],
        "link": link_to_page(page, about, environment_id),
    }
