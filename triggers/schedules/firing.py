"""Decides about each due time (tick) exactly once: makes a run, or a row that says why there is none.

A transaction locks some due triggers, skips those that others have locked, decides, and sets `next_run_at`, so that no
tick is lost. The pair (trigger, tick) is unique, so the database refuses a second decision. Each batch is split between
all workspaces, so that none must wait for another.

Consecutive ticks of a trigger that has no worker or is paused are a stretch, with one row. The first tick makes the row
and an audit row; later ones move `last_tick_at` and add to `missed_count`. A stretch ends with another decision, or
with ticks about which nobody decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.dispatch import Signal

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.ids import new_id
from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, execute, fetch_all
from pipedai.turns import Turns, in_time
from triggers.models import Tick, Trigger
from triggers.runs.queueing import queue_scheduled_runs
from triggers.runs.routing import wake_for
from triggers.schedules.cron import DueTimes
from triggers.states import STRETCHED, Decision

log = get_logger(__name__)

# After how long a trigger is tried again if its schedule can't be worked out, for example because its time zone is no
# longer in the zone database.
_RETRY_AFTER = timedelta(minutes=5)

# How many pairs of a due time and an environment a batch reads, at most. Due times are whole minutes, so thousands of
# due triggers have few of them. The query reads the index `trigger_due_in_environment` once for each pair, which takes
# some microseconds, and so finds every environment with due triggers without reading all triggers. Unless no scheduler
# ran for a while, there are hardly more pairs than environments with due triggers.
_MOST_PAIRS = 5_000

# Locks the due triggers of a batch. `position` is where a pair (a due time and an environment) stands in the queue
# of its workspace, and `size` is how many triggers of the batch each workspace gets. If a workspace has several pairs,
# they share its part. Triggers that another scheduler has locked are skipped.
_DUE = f"""
WITH RECURSIVE due (next_run_at, environment_id, step) AS (
    (SELECT next_run_at, environment_id, 1 FROM trigger WHERE next_run_at <= {NOW}
    ORDER BY next_run_at, environment_id LIMIT 1)
    UNION ALL
    SELECT later.next_run_at, later.environment_id, due.step + 1 FROM due CROSS JOIN LATERAL (
        SELECT next_run_at, environment_id FROM trigger
        WHERE (next_run_at, environment_id) > (due.next_run_at, due.environment_id) AND next_run_at <= {NOW}
        ORDER BY next_run_at, environment_id LIMIT 1) later
    WHERE due.step < %(most_pairs)s),
queue AS (
    SELECT due.next_run_at, due.environment_id, e.workspace_id, e.paused_at IS NOT NULL AS paused,
        count(*) OVER workspace AS pairs,
        row_number() OVER (workspace ORDER BY due.next_run_at, random()) AS position
    FROM due JOIN environment e ON e.id = due.environment_id
    WHERE %(only)s::uuid IS NULL OR due.environment_id = %(only)s
    WINDOW workspace AS (PARTITION BY e.workspace_id)),
share AS (
    SELECT ceil(%(limit)s::numeric / greatest(count(DISTINCT workspace_id), 1))::int AS size FROM queue),
turn AS (
    SELECT next_run_at, environment_id, paused,
        ceil((SELECT size FROM share)::numeric / least(pairs, (SELECT size FROM share)))::int AS most
    FROM queue WHERE position <= (SELECT size FROM share) ORDER BY position, random())
SELECT t.*, turn.paused, {NOW} AS now FROM turn CROSS JOIN LATERAL (
    SELECT id, environment_id, worker_id, pool_id, schedule, timezone, run_once_at, next_run_at, overlap_policy
    FROM trigger WHERE next_run_at = turn.next_run_at AND environment_id = turn.environment_id
    ORDER BY id LIMIT turn.most
    FOR NO KEY UPDATE SKIP LOCKED) t
LIMIT %(limit)s
"""
TURNS = Turns(_DUE)

# Finds, for each trigger, the unfinished run that was queued first.
_UNFINISHED = """
SELECT DISTINCT ON (trigger_id) trigger_id, id FROM run
WHERE trigger_id = ANY(%(ids)s) AND environment_id = ANY(%(environment_ids)s) AND ended_at IS NULL
ORDER BY trigger_id, queued_at, id
"""

# Stores the decisions. If a tick has a decision already, the older decision stays. That can happen after the database's
# clock was put back.
_DECIDE = """
INSERT INTO tick (id, environment_id, trigger_id, tick_at, last_tick_at, decision, run_id, blocked_by_id, missed_count,
    decided_at)
SELECT * FROM unnest(
    %(ids)s::uuid[], %(environment_ids)s::uuid[], %(trigger_ids)s::uuid[], %(ticks)s::timestamptz[],
    %(last_ticks)s::timestamptz[], %(decisions)s::text[], %(run_ids)s::uuid[], %(blocking)s::uuid[],
    %(missed)s::int[], %(decided)s::timestamptz[])
ON CONFLICT (trigger_id, tick_at, environment_id) DO NOTHING
RETURNING trigger_id, environment_id, tick_at, decision, run_id, missed_count
"""

# A single due time that is earlier than the trigger's next one has been decided about, and is removed.
_MOVE_ON = """
UPDATE trigger t SET next_run_at = n.next_run_at,
    run_once_at = CASE WHEN t.run_once_at >= n.next_run_at THEN t.run_once_at END
FROM unnest(%(ids)s::uuid[], %(nexts)s::timestamptz[]) AS n (id, next_run_at) WHERE t.id = n.id
"""


@dataclass(frozen=True, slots=True)
class _Tick:
    """A decision about one tick, or about the `missed_count` ticks from `at` to `last_at`."""

    trigger: Row
    at: datetime
    last_at: datetime
    decision: Decision
    missed_count: int = 0
    run_id: UUID | None = None
    blocked_by: UUID | None = None


@dataclass(slots=True)
class _Batch:
    """The decisions of one transaction. `busy` maps triggers that get no run now to their unfinished runs."""

    busy: dict[UUID, UUID]
    ticks: list[_Tick] = field(default_factory=list)
    nexts: dict[UUID, datetime | None] = field(default_factory=dict)

    def decide(self, trigger: Row) -> None:
        """Decides about a trigger. If its schedule can't be worked out, it tries again after `_RETRY_AFTER`, but does
        not hold up the trigger's single due time.
        """
        due_times = DueTimes.of(trigger)
        try:
            ticks, following = _decisions(trigger, due_times, self.busy)
        except Exception as error:
            log.error(
                "trigger.schedule_failed",
                trigger_id=str(trigger["id"]),
                schedule=trigger["schedule"],
                timezone=trigger["timezone"],
                error=f"{type(error).__name__}: {error}",
                retry_seconds=_RETRY_AFTER.total_seconds(),
            )
            alone = DueTimes(None, due_times.once)
            ticks, following = _decisions(trigger, alone, self.busy)
            again = trigger["now"] + _RETRY_AFTER
            following = min(again, following or again)
        self.ticks += ticks
        self.nexts[trigger["id"]] = following


def fire_due_ticks(*, limit: int = 500, now: datetime | None = None) -> int:
    """Decides about the ticks of up to `limit` triggers in one transaction, and returns how many. The triggers that it
    does not reach in the time of a turn stay due, because counting the missed ticks of many schedules takes long.
    """
    return TURNS.take(partial(_fire, now=now), limit=limit, now=now, most_pairs=_MOST_PAIRS)


def _fire(due: list[Row], now: datetime | None) -> int:
    # The triggers are locked already: the order of locks (docs/architecture.md) has triggers before their runs.
    batch = _Batch(_busy_triggers(due))
    for trigger in in_time(due):
        batch.decide(trigger)
    _store(batch, now)
    return len(batch.nexts)


def _busy_triggers(due: list[Row]) -> dict[UUID, UUID]:
    """Returns the triggers with the overlap policy `skip` and their first unfinished run."""
    skipping = [row for row in due if row["overlap_policy"] == Trigger.OverlapPolicy.SKIP]
    if not skipping:
        return {}
    environment_ids = list({row["environment_id"] for row in skipping})
    params = {"ids": [row["id"] for row in skipping], "environment_ids": environment_ids}
    return {row["trigger_id"]: row["id"] for row in fetch_all(_UNFINISHED, params)}


def _decisions(
    trigger: Row, due_times: DueTimes, busy: dict[UUID, UUID]
) -> tuple[list[_Tick], datetime | None]:
    """Returns the decisions about ticks since `next_run_at`, and the trigger's next due time, if any. There is one run
    at most, for the latest tick, and one row for all older ones.
    """
    now = trigger["now"]
    # Finds the first tick at or after `next_run_at`. That time is a tick itself, unless the trigger was put off because
    # its schedule failed, or the rules of its time zone have changed since.
    first = due_times.next_after(trigger["next_run_at"] - timedelta(microseconds=1))
    if first is None or first > now:
        return [], first
    due = due_times.ticks(first, now)
    if due.latest <= now - timedelta(seconds=settings.SCHEDULE_CATCHUP_SECONDS):
        return [_missed(trigger, first, due.latest, due.earlier_count + 1)], due.following
    ticks = [_decide(trigger, due.latest, busy)]
    if due.last_earlier is not None:
        ticks.append(_missed(trigger, first, due.last_earlier, due.earlier_count))
    return ticks, due.following


def _decide(trigger: Row, tick: datetime, busy: dict[UUID, UUID]) -> _Tick:
    if trigger["paused"]:
        return _Tick(trigger, tick, tick, Decision.SKIPPED_PAUSED, missed_count=1)
    if trigger["worker_id"] is None and trigger["pool_id"] is None:
        return _Tick(trigger, tick, tick, Decision.SKIPPED_NO_WORKER, missed_count=1)
    if (blocking := busy.get(trigger["id"])) is not None:
        return _Tick(trigger, tick, tick, Decision.SKIPPED_OVERLAP, blocked_by=blocking)
    return _Tick(trigger, tick, tick, Decision.FIRED, run_id=new_id())


def _missed(trigger: Row, first: datetime, last: datetime, count: int) -> _Tick:
    return _Tick(trigger, first, last, Decision.SKIPPED_MISSED, count)


def _store(batch: _Batch, now: datetime | None) -> None:
    ticks = _ticks_of_their_own(batch.ticks)
    decided = fetch_all(_DECIDE, _columns(ticks)) if ticks else []
    fired = [row for row in decided if row["run_id"]]
    if fired:
        queue_scheduled_runs(fired, now=now)
    execute(_MOVE_ON, {"ids": list(batch.nexts), "nexts": list(batch.nexts.values())})
    emit(*(_event(row) for row in decided))
    triggers = {tick.trigger["id"]: tick.trigger for tick in ticks}
    wake_for(triggers[row["trigger_id"]] for row in fired)


def _ticks_of_their_own(ticks: list[_Tick]) -> list[_Tick]:
    """Returns the ticks that need a row of their own. All others are added to the row of a stretch."""
    stretched = {tick.trigger["id"]: tick for tick in ticks if tick.decision in STRETCHED}
    joined = join_stretches(stretched)
    return [
        tick
        for tick in ticks
        if not (tick.trigger["id"] in joined and tick is stretched[tick.trigger["id"]])
    ]


def _columns(ticks: list[_Tick]) -> dict[str, list[Any]]:
    return {
        "ids": [new_id() for _ in ticks],
        "environment_ids": [tick.trigger["environment_id"] for tick in ticks],
        "trigger_ids": [tick.trigger["id"] for tick in ticks],
        "ticks": [tick.at for tick in ticks],
        "last_ticks": [tick.last_at for tick in ticks],
        "decisions": [tick.decision.value for tick in ticks],
        "run_ids": [tick.run_id for tick in ticks],
        "blocking": [tick.blocked_by for tick in ticks],
        "missed": [tick.missed_count for tick in ticks],
        "decided": [tick.trigger["now"] for tick in ticks],
    }


def _event(tick: Row) -> Event:
    metadata = {"tickAt": iso_time(tick["tick_at"]), "triggerId": str(tick["trigger_id"])}
    environment_id = tick["environment_id"]
    if tick["run_id"]:
        return Event("run.scheduled", SYSTEM, environment_id, "run", tick["run_id"], metadata)
    metadata |= {"decision": tick["decision"], "missedCount": tick["missed_count"]}
    return Event("run.skipped", SYSTEM, environment_id, "trigger", tick["trigger_id"], metadata)


# This signal tells, after a commit, which decisions (`decisions`) the transaction added to stretches. The metrics need
# it, because lengthening a stretch emits no event.
lengthened = Signal()


# Reads the latest tick of each trigger if it was decided in the same way. The caller has locked the triggers, so no
# other scheduler can add a tick meanwhile.
_LAST = """
SELECT last.* FROM unnest(%(trigger_ids)s::uuid[], %(decisions)s::text[]) AS due (trigger_id, decision)
CROSS JOIN LATERAL (
    SELECT id, trigger_id, tick_at, last_tick_at, decision FROM tick
    WHERE trigger_id = due.trigger_id ORDER BY tick_at DESC LIMIT 1) last
WHERE last.decision = due.decision
"""

# Adds a tick to each stretch's row. A row that was pruned meanwhile is not returned.
_LENGTHEN = """
UPDATE tick t SET last_tick_at = longer.tick_at, missed_count = t.missed_count + 1
FROM unnest(%(ids)s::uuid[], %(ticks)s::timestamptz[]) AS longer (id, tick_at)
WHERE t.id = longer.id AND t.last_tick_at < longer.tick_at
RETURNING t.trigger_id, t.decision
"""


def join_stretches(ticks: Mapping[UUID, _Tick]) -> set[UUID]:
    """Adds each trigger's tick to the stretch that it continues, and returns these triggers. All other ticks need a row
    of their own. The caller has locked the triggers.
    """
    if not ticks:
        return set()
    decisions = [each.decision.value for each in ticks.values()]
    params = {"trigger_ids": list(ticks), "decisions": decisions}
    joined, followed = set(), {}
    for stretch in fetch_all(_LAST, params):
        tick = ticks[stretch["trigger_id"]]
        if stretch["tick_at"] <= tick.at <= stretch["last_tick_at"]:
            # The stretch's row counts this tick already. That happens when the database's clock was put back.
            joined.add(stretch["trigger_id"])
        elif DueTimes.of(tick.trigger).next_after(stretch["last_tick_at"]) == tick.at:
            followed[stretch["id"]] = tick.at
    if followed:
        params = {"ids": list(followed), "ticks": list(followed.values())}
        longer = fetch_all(_LENGTHEN, params)
        tell = partial(lengthened.send, sender=Tick, decisions=[row["decision"] for row in longer])
        transaction.on_commit(tell, robust=True)
        joined |= {row["trigger_id"] for row in longer}
    return joined
