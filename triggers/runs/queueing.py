"""Queues runs: for requests, which an `Idempotency-Key` makes safe to repeat, for schedules, and for events.

An environment has a ceiling of queued runs, which holds also if several requests come at once. An event may join a run
that an earlier event has queued, as long as the run is not about to come due.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, Invalid, NotFound, or_not_found
from pipedai.events import Actor, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_one, fetch_row
from triggers.budgets.spending import check_budgets
from triggers.models import Run, Trigger, requesters_of
from triggers.runs import statements as sql
from triggers.runs.conditions import IS_COUNTED_AS_QUEUED
from triggers.runs.ending import run_event
from triggers.runs.lifecycle import Refused
from triggers.runs.queries import run_in_full
from triggers.runs.routing import wake_for
from triggers.states import TERMINAL, Source
from workspaces.ceilings import PROFILE
from workspaces.locks import lock_environment

# How many transactions can be queueing a run at the same moment, at most: PostgreSQL has fewer connections than this.
_UNDER_WAY = 500

# The environment of a trigger that can be run.
_ENVIRONMENT = """
SELECT environment_id FROM trigger
WHERE id = %(trigger_id)s AND enabled AND (worker_id IS NOT NULL OR pool_id IS NOT NULL) AND deleted_at IS NULL
"""

_COUNT = f"""
SELECT own.most, (
    SELECT count(*) FROM (
        SELECT FROM run r WHERE r.environment_id = e.id AND {IS_COUNTED_AS_QUEUED} LIMIT own.most) r) AS waiting
FROM environment e JOIN workspace w ON w.id = e.workspace_id,
LATERAL (SELECT greatest((w.ceilings ->> 'queuedRuns')::int, %(limit)s) AS most) own
WHERE e.id = %(environment_id)s
"""


@dataclass
class QueueRoom:
    """The room in an environment's queue, which a transaction has counted once for all the runs that it queues."""

    # How many more runs the transaction may queue.
    left: int
    # The ceiling of the environment.
    most: int

    def check(self, trigger_id: UUID) -> None:
        """Raises CeilingReached if there is no room left. If the trigger can't be run it does nothing, because the
        caller then raises an error about that.
        """
        if self.left <= 0 and fetch_one(_ENVIRONMENT, {"trigger_id": trigger_id}) is not None:
            raise CeilingReached(
                "queuedRuns",
                f"The environment has {self.most} queued runs, as many as it may.",
            )


def room_without_turns() -> int:
    """Returns how many runs an environment may have in its queue before requests for more runs must lock the
    environment. Below this number, requests queue runs without taking turns.

    The number is half of the ceiling, less the number of requests that can count the queue at the same moment. Even if
    all these requests queue a run at once, the queue stays below the ceiling. It ignores ceilings that staff have
    raised, so that the statement that queues a run need not read them.
    """
    return max(0, PROFILE["queuedRuns"] // 2 - _UNDER_WAY)


_IS_CROWDED = f"""
SELECT count(*) >= %(limit)s AS it_is FROM (
    SELECT FROM run r WHERE r.environment_id = %(environment_id)s AND {IS_COUNTED_AS_QUEUED} LIMIT %(limit)s) r
"""


def take_turns(environment_id: UUID, number: int) -> QueueRoom:
    """Returns how much room there is for `number` runs of different triggers. It counts the queue once for all of them,
    and locks the environment first if the queue is long. Call it before any trigger is locked.
    """
    limit = max(0, room_without_turns() - 2 * number)
    return _room_if_crowded(environment_id, limit) or QueueRoom(number, PROFILE["queuedRuns"])


def check_queue_room(trigger_id: UUID) -> None:
    """Raises CeilingReached if the environment has as many queued runs as it may. Call it before the trigger is locked.
    With `room_without_turns()` runs or more it locks the environment and counts them all. Schedules and retries don't
    call it. If the trigger can't be run it does nothing, because the caller may then hold the trigger's lock, which
    comes after the environment's.
    """
    trigger = fetch_one(_ENVIRONMENT, {"trigger_id": trigger_id})
    if trigger is None:
        return
    room = _room_if_crowded(trigger["environment_id"], room_without_turns())
    if room is not None:
        room.check(trigger_id)


def _room_if_crowded(environment_id: UUID, limit: int) -> QueueRoom | None:
    """If the queue has `limit` runs or more, locks the environment and counts the queue; otherwise returns None."""
    params = {"environment_id": environment_id, "limit": limit}
    if not fetch_row(_IS_CROWDED, params)["it_is"]:
        return None
    lock_environment(environment_id)
    queue = fetch_row(_COUNT, {**params, "limit": PROFILE["queuedRuns"]})
    return QueueRoom(queue["most"] - queue["waiting"], queue["most"])


def queue_run(
    *,
    trigger_id: UUID,
    source: Source,
    actor: Actor,
    run_id: UUID | None = None,
    payload: Any = None,
    rerun_of: UUID | None = None,
    event_id: UUID | None = None,
    chain_depth: int = 0,
    coalesce_key: bytes | None = None,
    force: bool = False,
    look_only: bool = False,
    delay: timedelta = timedelta(0),
    requesters: Sequence[UUID] = (),
    watched: bool = False,
    room: QueueRoom | None = None,
    now: datetime | None = None,
) -> Row:
    """Queues a run of a trigger, due after `delay`, in the caller's transaction. `rerun_of` is the run whose payload is
    used again, and `event_id` the event from which the payload comes. With `force` the run does not look for something
    new before the agent starts, and with `look_only` it only looks. Its requesters are the actor, if that is a user or
    a key, and `requesters`. `watched` says that a person who asked for the run will look at it. A caller that queues
    several runs gives their `room`, so that the queue is not counted for each. Raises NotFound; Conflict if the trigger
    is disabled or has neither worker nor pool, if the environment is paused, or if a budget refuses; CeilingReached;
    and IntegrityError if a queued run has the `coalesce_key`.
    """
    if room is not None:
        room.check(trigger_id)
    by = [actor.id] if actor.id and actor.type in ("user", "api_key") else []
    first, *others = dict.fromkeys((*by, *requesters)) or (None,)
    params = {
        "id": run_id or new_id(),
        "trigger_id": trigger_id,
        "source": source.value,
        "payload": None if payload is None else json.dumps(payload, ensure_ascii=False),
        "rerun_of_id": rerun_of,
        "event_id": event_id,
        "chain_depth": chain_depth,
        "coalesce_key": coalesce_key,
        "force": force,
        "look_only": look_only,
        "delay_seconds": delay.total_seconds(),
        "requested_by": first,
        "also_requested_by": others or None,
        "watched": watched,
        "now": now,
        "room": None if room else room_without_turns(),
    }
    run = fetch_one(sql.QUEUE, params)
    if run is None and room is None:
        # `sql.QUEUE` queued no run. One possible reason is that the queue is so long that requests must lock the
        # environment and count one after the other. The other is that the trigger can't be run. In that case this
        # transaction may hold the trigger's lock, after which no environment may be locked, and `check_queue_room`
        # locks nothing.
        check_queue_room(trigger_id)
        run = fetch_one(sql.QUEUE, {**params, "room": None})
    if run is not None and run["id"] is None:
        # The statement `sql.QUEUE` had to wait while another transaction changed the trigger. It could not see the
        # trigger's new revision, which was inserted after the statement had begun, so it is executed again.
        run = fetch_one(sql.QUEUE, {**params, "room": None})
    if run is None:
        raise why_not_queued(trigger_id)
    if look_only and not run["looks"]:
        raise Invalid({"lookOnly": ["The trigger has no `before`, or the run is forced."]})
    if run["budgets_can_reject"]:
        check_budgets(run_id=run["id"], now=now)
    about: dict[str, Any] = {"source": source.value}
    about |= {"rerunOf": str(rerun_of)} if rerun_of else {}
    about |= {"eventId": str(event_id)} if event_id else {}
    about |= {"force": True} if force else {}
    about |= {"lookOnly": True} if look_only else {}
    emit(run_event("run.created", actor, run, about))
    wake_for([run])
    if room is not None:
        room.left -= 1
    return {**run, "payload": payload}


def queue_scheduled_runs(ticks: list[Row], *, now: datetime | None = None) -> None:
    """Inserts a run for each tick, which has `run_id`, `trigger_id` and `tick_at`. The caller has locked the triggers,
    and emits the events and wakes the workers.
    """
    params = {
        "run_ids": [tick["run_id"] for tick in ticks],
        "trigger_ids": [tick["trigger_id"] for tick in ticks],
        "ticks": [tick["tick_at"] for tick in ticks],
        "now": now,
    }
    execute(sql.QUEUE_SCHEDULED, params)


def why_not_queued(trigger_id: UUID) -> Conflict | NotFound:
    rows = Trigger.objects.filter(id=trigger_id, deleted_at__isnull=True)
    trigger = rows.values("enabled", "environment__paused_at").first()
    if trigger is None:
        return NotFound()
    if not trigger["enabled"]:
        return Conflict("The trigger is paused.", code=ErrorCode.TRIGGER_DISABLED)
    if trigger["environment__paused_at"] is not None:
        return Conflict("The environment is paused.", code=ErrorCode.ENVIRONMENT_PAUSED)
    return Conflict(
        "The trigger has neither a machine nor a pool.", code=ErrorCode.TRIGGER_WITHOUT_WORKER
    )


_READ_PAYLOAD = "SELECT payload FROM run_text WHERE run_id = %(run_id)s"

_REPLACE_PAYLOAD = "UPDATE run_text SET payload = %(payload)s WHERE run_id = %(run_id)s"


def join_run(
    *,
    trigger_id: UUID,
    environment_id: UUID,
    coalesce_key: bytes,
    event_id: UUID,
    payload: Any,
    merge: Callable[[Any, Any], Any] | None,
    requesters: Sequence[UUID] = (),
    now: datetime | None = None,
) -> UUID | None:
    """Gives the queued run with the key another payload: the given one, or the result of `merge` of its payload and the
    given one. It adds `requesters` to the run's requesters, and returns the run's id. If no event may join a run with
    the key, it returns None, and the next run may have the key. The caller has locked the trigger.
    """
    params: Row = {
        "trigger_id": trigger_id,
        "environment_id": environment_id,
        "coalesce_key": coalesce_key,
        "event_id": event_id,
        "replaces": merge is None,
        "requesters": list(requesters),
        "now": now,
    }
    run = fetch_one(sql.JOIN, params)
    if run is None:
        execute(sql.CLOSE, params)
        return None
    run_id: UUID = run["id"]
    params["run_id"] = run_id
    if merge is not None:
        # A statement after the lock must read the payload, to see what an event has added while this one waited.
        payload = merge(fetch_row(_READ_PAYLOAD, params)["payload"], payload)
    execute(_REPLACE_PAYLOAD, {**params, "payload": json.dumps(payload, ensure_ascii=False)})
    return run_id


# Inserts the key, before the run and in the same transaction. If several equal requests come at the same moment, one of
# them inserts the key. The other requests wait until its transaction commits, and then find its row. A key older than a
# day is treated as new.
_REMEMBER = """
INSERT INTO idempotency_key (trigger_id, caller_id, key, environment_id, body_digest, run_id)
SELECT id, %(caller_id)s, %(key)s, environment_id, %(body_digest)s, %(run_id)s
FROM trigger WHERE id = %(trigger_id)s
ON CONFLICT (trigger_id, caller_id, key) DO UPDATE
SET body_digest = excluded.body_digest, run_id = excluded.run_id, created_at = excluded.created_at
WHERE idempotency_key.created_at < statement_timestamp() - interval '24 hours'
RETURNING run_id
"""

_RECALL = """
SELECT run_id, body_digest FROM idempotency_key
WHERE trigger_id = %(trigger_id)s AND caller_id = %(caller_id)s AND key = %(key)s
"""

# The foreign key that refuses a rerun if the original run was pruned meanwhile.
_RERUN_OF = "run_rerun_of_in_environment"


@dataclass(frozen=True, slots=True)
class Queued:
    run: Row
    replayed: bool


def run_trigger(
    *,
    trigger_id: UUID,
    caller_id: UUID,
    key: str | None,
    payload: Any,
    force: bool = False,
    look_only: bool = False,
    source: Source,
    actor: Actor,
    watched: bool = False,
) -> Queued:
    """Queues a run. A request that repeats a `key` within 24 hours gets the first one's run, in its present state. A
    failed request may be repeated. Raises Conflict if the key came with another body, and the errors of `queue_run`.
    """
    return _queue_once(
        trigger_id=trigger_id,
        caller_id=caller_id,
        key=key,
        digest=None if key is None else _digest(payload, force=force, look_only=look_only),
        force=force,
        look_only=look_only,
        source=source,
        watched=watched,
        actor=actor,
        payload=payload,
    )


def rerun_run(
    *,
    run_id: UUID,
    caller_id: UUID,
    key: str | None,
    force: bool = False,
    source: Source,
    actor: Actor,
    watched: bool = False,
) -> Queued:
    """Queues a new run of the run's trigger as it is now, with the same payload. If the run only looked, so does the
    new one, unless it is forced. `key` works as in `run_trigger`. Raises Refused if the run has not ended,
    Conflict, NotFound, and the errors of `queue_run`.
    """
    original: Any = or_not_found(
        Run.objects.filter(id=run_id)
        .values(
            *("trigger_id", "status", "event_id", "chain_depth", "text__payload", "look_only"),
            *("requested_by", "also_requested_by"),
        )
        .first()
    )
    if original["status"] not in TERMINAL:
        raise Refused(
            f"The run is {original['status']}: only a run that has ended can be run again.",
            original,
            code=ErrorCode.RUN_STATE,
        )
    try:
        return _queue_once(
            trigger_id=original["trigger_id"],
            caller_id=caller_id,
            key=key,
            digest=hashlib.sha256(f"rerun {run_id}{' force' * force}".encode()).digest(),
            force=force,
            look_only=original["look_only"] and not force,
            source=source,
            watched=watched,
            actor=actor,
            payload=original["text__payload"],
            rerun_of=run_id,
            event_id=original["event_id"],
            chain_depth=original["chain_depth"],
            requesters=requesters_of(original["requested_by"], original["also_requested_by"]),
        )
    except IntegrityError as error:
        if _RERUN_OF in str(error):
            raise NotFound from None
        raise


def _queue_once(
    *, trigger_id: UUID, caller_id: UUID, key: str | None, digest: bytes | None, **run: Any
) -> Queued:
    """Queues a run, or returns the one of an earlier request with this key if the digest is the same, and raises
    Conflict otherwise. The digest is needed only with a key.
    """
    run_id = new_id()
    params = {
        "trigger_id": trigger_id,
        "caller_id": caller_id,
        "key": key,
        "run_id": run_id,
        "body_digest": digest,
    }
    with transaction.atomic():
        if key is None or fetch_one(_REMEMBER, params) is not None:
            queued = queue_run(trigger_id=trigger_id, run_id=run_id, **run)
            return Queued(queued, replayed=False)
        first = or_not_found(fetch_one(_RECALL, params))
        if bytes(first["body_digest"]) != digest:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                code=ErrorCode.IDEMPOTENCY_KEY_REUSED,
            )
        return Queued(run_in_full(first["run_id"]), replayed=True)


def _digest(payload: Any, **options: bool) -> bytes:
    """Returns the SHA-256 of the body as canonical JSON: the order of keys does not matter to it, and 1.0 equals 1. The
    options that are set follow the JSON, so that no payload has the digest of another one with options.
    """
    plain = json.loads(json.dumps(payload), parse_float=_number)
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    words = (canonical, *(name for name, is_set in options.items() if is_set))
    return hashlib.sha256(" ".join(words).encode()).digest()


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value
