"""The run state machine (SPEC §6, docs/run-lifecycle.md). `retries` queues retries, and `reports` ends runs as workers
say.

Each transition is one UPDATE whose condition names the expected state, so that only one of two processes succeeds. The
state is read, for an error, only if nothing was changed. What follows is written in the same transaction.
docs/architecture.md has the order of locks.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Unpack
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all, fetch_one, fetch_row
from pipedai.wakeups import wake_workers
from triggers.budgets.reserving import reserve
from triggers.budgets.room import check_budgets
from triggers.runs import conditions, reads
from triggers.runs import statements as sql
from triggers.runs.ceiling import QueueRoom, check_queue_room, room_without_turns
from triggers.runs.ending import ended_event, follow_up, run_event
from triggers.runs.outcome import ToolCalls, counts_of
from triggers.runs.pools import is_member, wake_for
from triggers.runs.reachability import lease_params
from triggers.runs.refusals import Refused, no_room, refusal_of_claim, why_not_queued
from triggers.runs.retries import lock_triggers
from triggers.runs.waiting import close_approvals
from triggers.states import TERMINAL, UNHELD, ApprovalStatus, EndedBy, Source, Status


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
    delay: timedelta = timedelta(0),
    requesters: Sequence[UUID] = (),
    room: QueueRoom | None = None,
    now: datetime | None = None,
) -> Row:
    """Queues a run of a trigger, due after `delay`, in the caller's transaction. `rerun_of` is the run whose payload is
    used again, and `event_id` the event from which the payload comes. A user or key as the actor requests the run,
    beside `requesters`. Who queues several runs gives their `room`, so that the queue is not counted for each. Raises
    NotFound; Conflict if the trigger is disabled or has neither worker nor pool, if the environment is paused, or if a
    budget refuses; CeilingReached; and IntegrityError if a queued run has the `coalesce_key`.
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
        "delay_seconds": delay.total_seconds(),
        "requested_by": first,
        "also_requested_by": others or None,
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
    if run["budgets_can_reject"]:
        check_budgets(run_id=run["id"], now=now)
    about = {"source": source.value}
    about |= {"rerunOf": str(rerun_of)} if rerun_of else {}
    about |= {"eventId": str(event_id)} if event_id else {}
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


def claim_run(
    *,
    worker_id: UUID,
    run_id: UUID,
    claim_id: str | None,
    start: bool = False,
    actor: Actor,
    now: datetime | None = None,
    **limits: Unpack[conditions.Limits],
) -> Row:
    """Moves a run from queued to claimed and gives it a lease; with `start` it is running at once. A repetition with
    the same `claim_id` returns the run. The caller has locked the worker's row, from which `capacity` and `approved`
    come, so that no other claim changes what the worker holds. Raises NotFound, and Refused; if a budget refuses, the
    transaction must be rolled back. `max_cost_usd` is what was reserved.
    """
    take = partial(
        take_run,
        worker_id=worker_id,
        run_id=run_id,
        claim_id=claim_id,
        start=start,
        actor=actor,
        now=now,
        **limits,
    )
    if claimed := take():
        return claimed
    run = _read_claimable(run_id, worker_id, now)
    if run["status"] == Status.QUEUED and run["max_concurrent_runs"] is not None:
        if claimed := take(limited_trigger=run["trigger_id"]):
            return claimed
        run = _read_claimable(run_id, worker_id, now)
    is_started = start and run["status"] == Status.RUNNING
    if run["worker_id"] == worker_id and (run["status"] == Status.CLAIMED or is_started):
        if run["claim_id"] == claim_id:
            if start and not is_started:
                started = start_run(worker_id=worker_id, run_id=run_id, actor=actor, now=now)
                return {**run, **started}
            return run
        raise Refused(
            "The run has been claimed with another claimId.",
            run,
            code=ErrorCode.CLAIMED_BY_ANOTHER,
        )
    if run["worker_id"] != worker_id and run["claimed_at"] is not None:
        raise Refused(
            "Another worker of the pool has claimed the run.",
            run,
            code=ErrorCode.CLAIMED_BY_ANOTHER,
        )
    if run["status"] != Status.QUEUED:
        raise Refused(f"The run is {run['status']} and can't be claimed.", run)
    met = conditions.evaluate(run_id=run_id, worker_id=worker_id, now=now, **limits)
    raise refusal_of_claim(run, met, limits["capacity"])


def take_run(
    *,
    worker_id: UUID,
    run_id: UUID,
    claim_id: str | None,
    start: bool,
    actor: Actor,
    limited_trigger: UUID | None = None,
    once: bool = False,
    then: Callable[[], None] = lambda: None,
    now: datetime | None = None,
    **limits: Unpack[conditions.Limits],
) -> Row | None:
    """Claims a run, as `claim_run` says, or returns None and has written nothing. Raises Refused if a budget has no
    room.

    `limited_trigger` is the run's trigger, if it limits how many of its runs may be held at once. With `once`, it
    claims nothing if the worker holds a run that it claimed with this `claim_id`. `then` is called when the run is
    claimed, and before budgets are locked.
    """
    if limited_trigger is not None:
        execute(reads.LOCK_TRIGGER, {"trigger_id": limited_trigger})
    params = {
        **_leasing(run_id, worker_id, now),
        "claim_id": claim_id,
        **conditions.NO_APPROVALS,
        **limits,
    }
    statement = sql.claim(limited=limited_trigger is not None, start=start, once=once)
    if (claimed := fetch_one(statement, params)) is None:
        return None
    emit(*_claim_events(claimed, actor))
    then()
    # Budgets come last in a claim, because the claims of an environment wait for each other from here on.
    if claimed["has_budgets"] and not reserve(claimed):
        raise no_room({"status": Status.QUEUED})
    return claimed


def _claim_events(claimed: Row, actor: Actor) -> list[Event]:
    if claimed["status"] == Status.CLAIMED:
        return [run_event("run.claimed", actor, claimed)]
    return [
        run_event("run.claimed", actor, {**claimed, "status": Status.CLAIMED.value}),
        run_event("run.started", actor, claimed),
    ]


def start_run(*, worker_id: UUID, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Moves a run from claimed to running and renews its lease. A running one is returned. Raises NotFound, Refused."""
    with transaction.atomic():
        run = fetch_one(sql.START, _leasing(run_id, worker_id, now))
        if run is not None:
            emit(run_event("run.started", actor, run))
            return run
        run = read_own_run(run_id, worker_id, now)
        if run["status"] == Status.RUNNING:
            return run
        raise Refused(f"The run is {run['status']} and can't be started.", run)


def heartbeat_run(
    *,
    worker_id: UUID,
    run_id: UUID,
    tool_calls: ToolCalls | None = None,
    session_id: str | None = None,
    now: datetime | None = None,
) -> Row:
    """Renews the lease of a held run, and returns `status`, `cancel_requested_at` and `lease_expires_at`. Stores
    `tool_calls`, unless later counts are there, and `session_id`, to know it if the worker is lost. Raises NotFound,
    and Refused if the worker must stop the run.
    """
    params = {
        **_leasing(run_id, worker_id, now),
        "session_id": session_id,
        **counts_of(tool_calls),
    }
    beat = fetch_one(sql.HEARTBEAT, params)
    if beat is None:
        run = read_own_run(run_id, worker_id, now)
        raise Refused(f"The run is {run['status']}: this worker does not hold it.", run)
    return beat


def cancel_run(*, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Ends a queued or waiting run, or asks the worker of a claimed or running one to stop it. A second call changes
    nothing. Raises NotFound, and Refused for an ended run. The caller has checked the user's role.
    """
    params = {"run_id": run_id, "now": now}
    with transaction.atomic():
        if run := _cancel(params, actor):
            return run
        run = fetch_one(reads.READ, params)
        if run is not None and run["status"] in UNHELD:
            # The run's worker let it wait between the two statements, or a person decided. Nobody changes it while it
            # is locked.
            execute(reads.LOCK, params)
            if canceled := _cancel(params, actor):
                return canceled
            run = fetch_one(reads.READ, params)
        if run is None:
            raise NotFound
        if run["status"] in TERMINAL:
            raise Refused(f"The run is {run['status']} already.", run)
        return run


def _cancel(params: Row, actor: Actor) -> Row | None:
    """Does what `cancel_run` says. Returns None if it has changed nothing."""
    if run := fetch_one(sql.CANCEL_UNHELD, params):
        if run["spells"]:
            close_approvals([run], ApprovalStatus.WITHDRAWN, now=params["now"])
        follow_up([run], [run_event("run.canceled", actor, run)])
    elif run := fetch_one(sql.REQUEST_CANCEL, params):
        emit(run_event("run.cancel-requested", actor, run))
        wake_workers([run["worker_id"]])
    return run


def reassign_queued_runs(*, trigger_id: UUID, now: datetime | None = None) -> None:
    """Moves queued runs to the trigger's present worker and pool. The caller has changed and locked the trigger, so
    that no run is queued for the old ones.
    """
    _reassign(sql.REASSIGN, trigger_id=trigger_id, now=now)


def prefer_anew(*, trigger_id: UUID) -> None:
    """Works out again how long queued runs are for the trigger's worker first. The caller has locked the trigger."""
    _reassign(sql.PREFER_ANEW, trigger_id=trigger_id, now=None)


def reassign_runs_of_worker(*, worker_id: UUID) -> int:
    """Moves runs that a worker would take alone or first, and returns how many; those that only it could continue end
    soon. The caller has locked their triggers and ended the worker's memberships.
    """
    execute(sql.GIVE_UP_WAITING, {"worker_id": worker_id, "now": None})
    return _reassign(sql.REASSIGN_OF_WORKER, worker_id=worker_id, now=None)


def reassign_resuming_runs(*, worker_id: UUID, pool_id: UUID) -> None:
    """Lets a pool's runs that wait for a session of this worker wait no longer, unless it is their trigger's. The
    caller has taken the worker out of the pool, and has locked the pool's triggers that resume.
    """
    _reassign(sql.REASSIGN_RESUMING, worker_id=worker_id, pool_id=pool_id, now=None)


def _reassign(statement: str, **params: Any) -> int:
    """Reassigns queued runs, wakes old and new workers, and returns how many it moved."""
    moved = fetch_all(statement, params)
    wake_for(moved)
    wake_workers([run["old_worker_id"] for run in moved])
    return len(moved)


def count_unfinished_runs(*, worker_id: UUID) -> int:
    row = fetch_row(reads.COUNT_UNFINISHED, {"worker_id": worker_id})
    return int(row["unfinished"])


def expire_runs(*, limit: int = 100, now: datetime | None = None) -> int:
    """Ends up to `limit` claimed or running runs whose lease or deadline has passed, and returns how many. A lease
    counts only while workers can reach the service (`triggers.runs.reachability`).
    """
    params = {
        "limit": limit,
        "now": now,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        **lease_params(),
    }
    return _end_found(
        reads.OVERDUE,
        sql.EXPIRE,
        params,
        lambda run: "run.lost" if run["ended_by"] == EndedBy.LEASE else "run.timed-out",
    )


def expire_queued_runs(*, limit: int = 100, now: datetime | None = None) -> int:
    """Ends up to `limit` runs that no worker may claim any more, and returns how many: their start deadline has passed,
    nobody continued their session in time, or nobody decided in time about the call for which they wait.
    """
    params = {"limit": limit, "now": now}
    return _end_found(reads.UNSTARTABLE, sql.END_UNSTARTABLE, params, _unstarted)


def _unstarted(run: Row) -> str:
    is_undecided = run["ended_by"] == EndedBy.APPROVAL_EXPIRED
    return "run.approval-expired" if is_undecided else "run.not-started"


def _end_found(find: str, end: str, params: Row, action: Callable[[Row], str]) -> int:
    """Ends the runs that the statement `find` finds by the statement `end`, and returns how many. `action` says which
    action the end of a run is.
    """
    with transaction.atomic():
        found = fetch_all(find, params)
        if not found:
            return 0
        lock_triggers(row["trigger_id"] for row in found)
        ids = [run["id"] for run in found]
        # With the environments PostgreSQL reads only their partitions, if the table is partitioned by environment.
        environment_ids = list({run["environment_id"] for run in found})
        ended = fetch_all(end, {**params, "ids": ids, "environment_ids": environment_ids})
        close_approvals(
            [run for run in ended if run["spells"]], ApprovalStatus.EXPIRED, now=params["now"]
        )
        follow_up(ended, [ended_event(action(run), SYSTEM, run) for run in ended])
    return len(ended)


def _leasing(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    """Returns the parameters of the SQL statements that set or renew a run's lease."""
    return {
        "run_id": run_id,
        "worker_id": worker_id,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        "now": now,
    }


def read_own_run(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    run = fetch_one(reads.READ, {"run_id": run_id, "now": now})
    if run is None or run["worker_id"] != worker_id:
        raise NotFound
    return run


def _read_claimable(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    run = fetch_one(reads.READ, {"run_id": run_id, "now": now})
    if run is None or (run["worker_id"] != worker_id and not is_member(run["pool_id"], worker_id)):
        raise NotFound
    return run
