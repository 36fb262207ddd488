"""Fires due ticks: each becomes a run, or a reason why not, exactly once (SPEC §7).

A batch of due triggers is locked, decided and moved on in one transaction; what another scheduler
holds is skipped. A unique (trigger, tick) makes doubling impossible in the database itself, and
`next_run_at` moves only with the decision, so that no tick is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all
from pipedai.wakeups import wake_workers
from triggers import cron
from triggers.models import Trigger
from triggers.states import Decision

_NOW = "coalesce(%(now)s::timestamptz, statement_timestamp())"

# In the lock order triggers come before runs. Of a batch, the ones that have waited longest first.
_DUE = f"""
SELECT id, environment_id, worker_id, revision_id, schedule, timezone, next_run_at, overlap_policy, max_retries,
    timeout_seconds, {_NOW} AS now
FROM trigger WHERE next_run_at <= {_NOW}
ORDER BY next_run_at, id LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED
"""

_UNFINISHED = (
    "SELECT DISTINCT trigger_id FROM run WHERE trigger_id = ANY(%(ids)s) AND ended_at IS NULL"
)

# The decisions; a tick that has one already (a database restored to an earlier clock) keeps it.
_DECIDE = """
INSERT INTO tick (id, environment_id, trigger_id, tick_at, last_tick_at, decision, run_id, missed_count, decided_at)
SELECT * FROM unnest(
    %(ids)s::uuid[], %(environment_ids)s::uuid[], %(trigger_ids)s::uuid[], %(ticks)s::timestamptz[],
    %(last_ticks)s::timestamptz[], %(decisions)s::text[], %(run_ids)s::uuid[], %(missed)s::int[],
    %(decided)s::timestamptz[])
ON CONFLICT (trigger_id, tick_at) DO NOTHING
RETURNING trigger_id, environment_id, tick_at, decision, run_id, missed_count
"""

_QUEUE = f"""
INSERT INTO run (
    id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries, timeout_seconds,
    scheduled_for, queued_at, available_at, model)
SELECT f.run_id, t.environment_id, t.id, t.revision_id, t.worker_id, 'queued', 'schedule', 1, t.max_retries,
    t.timeout_seconds, f.tick_at, {_NOW}, {_NOW}, v.model
FROM unnest(%(run_ids)s::uuid[], %(trigger_ids)s::uuid[], %(ticks)s::timestamptz[]) AS f (run_id, trigger_id, tick_at)
JOIN trigger t ON t.id = f.trigger_id JOIN trigger_revision v ON v.id = t.revision_id
"""

_MOVE_ON = """
UPDATE trigger t SET next_run_at = n.next_run_at
FROM unnest(%(ids)s::uuid[], %(nexts)s::timestamptz[]) AS n (id, next_run_at) WHERE t.id = n.id
"""


@dataclass(frozen=True, slots=True)
class _Tick:
    """One decided tick, or a gap of missed ones from `at` to `last_at`."""

    trigger: Row
    at: datetime
    last_at: datetime
    decision: Decision
    missed_count: int = 0
    run_id: UUID | None = None


def fire_due_ticks(*, limit: int = 500, now: datetime | None = None) -> int:
    """Decides the due ticks of up to `limit` triggers; how many triggers. One batch, in one transaction."""
    with transaction.atomic():
        due = fetch_all(_DUE, {"limit": limit, "now": now})
        if not due:
            return 0
        busy = _busy_triggers(due)
        ticks = [tick for trigger in due for tick in _decisions(trigger, busy)]
        decided = fetch_all(_DECIDE, _columns(ticks))
        fired = [row for row in decided if row["run_id"]]
        execute(
            _QUEUE,
            {
                "run_ids": [row["run_id"] for row in fired],
                "trigger_ids": [row["trigger_id"] for row in fired],
                "ticks": [row["tick_at"] for row in fired],
                "now": now,
            },
        )
        execute(
            _MOVE_ON,
            {
                "ids": [trigger["id"] for trigger in due],
                "nexts": [_schedule(trigger).next_after(trigger["now"]) for trigger in due],
            },
        )
        emit(*(_event(row) for row in decided))
        workers = {trigger["id"]: trigger["worker_id"] for trigger in due}
        wake_workers({workers[row["trigger_id"]] for row in fired})
    return len(due)


def _busy_triggers(due: list[Row]) -> set[UUID]:
    """Those of the due triggers that must not overlap and have an unfinished run."""
    ids = [row["id"] for row in due if row["overlap_policy"] == Trigger.OverlapPolicy.SKIP]
    return {row["trigger_id"] for row in fetch_all(_UNFINISHED, {"ids": ids})} if ids else set()


def _decisions(trigger: Row, busy: set[UUID]) -> Iterator[_Tick]:
    """What becomes of a trigger's ticks since `next_run_at`: at most one run, for the latest, and
    one row for the older.
    """
    now = trigger["now"]
    schedule = _schedule(trigger)
    latest = trigger["next_run_at"]
    missed: list[datetime] = []
    while (following := schedule.next_after(latest)) <= now:
        missed.append(latest)
        latest = following
    if latest <= now - timedelta(seconds=settings.SCHEDULE_CATCHUP_SECONDS):
        missed.append(latest)
    else:
        yield _decide(trigger, latest, busy)
    if missed:
        yield _Tick(trigger, missed[0], missed[-1], Decision.SKIPPED_MISSED, len(missed))


def _decide(trigger: Row, tick: datetime, busy: set[UUID]) -> _Tick:
    if trigger["worker_id"] is None:
        return _Tick(trigger, tick, tick, Decision.SKIPPED_NO_WORKER)
    if trigger["id"] in busy:
        return _Tick(trigger, tick, tick, Decision.SKIPPED_OVERLAP)
    return _Tick(trigger, tick, tick, Decision.FIRED, run_id=new_id())


def _schedule(trigger: Row) -> cron.Schedule:
    return cron.Schedule(trigger["schedule"], trigger["timezone"])


def _columns(ticks: list[_Tick]) -> dict[str, list[Any]]:
    return {
        "ids": [new_id() for _ in ticks],
        "environment_ids": [tick.trigger["environment_id"] for tick in ticks],
        "trigger_ids": [tick.trigger["id"] for tick in ticks],
        "ticks": [tick.at for tick in ticks],
        "last_ticks": [tick.last_at for tick in ticks],
        "decisions": [tick.decision.value for tick in ticks],
        "run_ids": [tick.run_id for tick in ticks],
        "missed": [tick.missed_count for tick in ticks],
        "decided": [tick.trigger["now"] for tick in ticks],
    }


def _event(tick: Row) -> Event:
    """A fired tick is about its run, a skipped one about its trigger."""
    metadata = {"tickAt": iso_time(tick["tick_at"]), "triggerId": str(tick["trigger_id"])}
    if tick["run_id"]:
        return Event(
            "run.scheduled", SYSTEM, tick["environment_id"], "run", tick["run_id"], metadata
        )
    metadata |= {"decision": tick["decision"], "missedCount": tick["missed_count"]}
    return Event(
        "run.skipped", SYSTEM, tick["environment_id"], "trigger", tick["trigger_id"], metadata
    )
