"""The run state machine (SPEC §6): all ways in which a run begins or changes its state, except retries, which `retries`
has.

Each transition is one UPDATE whose condition names the expected state, so that of two processes only one can succeed.
The present state is read for an error only if the UPDATE changed nothing. What follows from a transition (a retry, a
delivery, audit rows) is written in the same transaction. docs/architecture.md has the order in which locks are taken,
and docs/run-lifecycle.md describes the states.
"""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound
from pipedai.api.renderers import JSONEncoder
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all, fetch_one
from pipedai.wakeups import wake_workers
from triggers.models import Trigger
from triggers.runs import statements as sql
from triggers.runs.ceiling import check_queue_room, room_without_turns
from triggers.runs.outcome import Outcome
from triggers.runs.reachability import lease_params
from triggers.runs.retries import calls_for_retry, create_retries, lock_triggers, retry_events
from triggers.states import SERVER_VERDICTS, TERMINAL, EndedBy, Source, Status
from triggers.webhooks.outbox import queue_deliveries


class Refused(Conflict):
    """The error 409 for a run whose state does not allow the transition. The answer names that state (SPEC §6)."""

    def __init__(self, message: str, run: Row, *, code: ErrorCode | None = None) -> None:
        super().__init__(message, code=code, status=run["status"])


_UNAPPROVED = (
    "The worker gets no run whose trigger has headers, until an admin approves it"
    " (POST /workers/:id/approve): it was registered by a key's token."
)


def queue_run(
    *,
    trigger_id: UUID,
    source: Source,
    actor: Actor,
    run_id: UUID | None = None,
    payload: Any = None,
    now: datetime | None = None,
) -> Row:
    """Queues a run of a trigger for its present worker, due at once, and returns it. Call it inside a transaction.

    Raises NotFound for a deleted trigger, Conflict for one that is disabled or has no worker, and CeilingReached if
    the environment has as many queued runs as it may have.
    """
    params = {
        "id": run_id or new_id(),
        "trigger_id": trigger_id,
        "source": source.value,
        "payload": None if payload is None else json.dumps(payload, ensure_ascii=False),
        "now": now,
        "room": room_without_turns(),
    }
    run = fetch_one(sql.QUEUE, params)
    if run is None:
        # No run was queued: either so many are queued that requests must take turns, or the trigger can't be run. In
        # the second case this transaction may hold the trigger's lock, and `check_queue_room` then locks nothing, which
        # keeps the order of locks.
        check_queue_room(trigger_id)
        run = fetch_one(sql.QUEUE, {**params, "room": None})
    if run is not None and run["id"] is None:
        # `sql.QUEUE` waited for a change of the trigger. It could not see the trigger's new revision, which is younger
        # than the statement, so it is repeated.
        run = fetch_one(sql.QUEUE, {**params, "room": None})
    if run is None:
        raise _why_not_queued(trigger_id)
    emit(_event("run.created", actor, run, {"source": source.value}))
    wake_workers([run["worker_id"]])
    return {**run, "payload": payload}


def queue_scheduled_runs(ticks: list[Row], *, now: datetime | None = None) -> None:
    """Inserts runs for due times of schedules, to be executed at once. Each of `ticks` has `run_id`, `trigger_id` and
    `tick_at`.

    Call it in the transaction that has locked the triggers. The caller emits the events and wakes the workers.
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
    capacity: int,
    approved: bool,
    actor: Actor,
    now: datetime | None = None,
) -> Row:
    """Moves a run from queued to claimed and gives it a lease. If the worker repeats a claim with the same `claim_id`,
    it returns the stored run.

    Call it in a transaction that has locked the worker's row, so that no other claim changes how many runs the worker
    holds. `capacity` is how many runs the worker may hold according to that row; with 0 it gets no new run. `approved`
    is whether that row allows runs whose triggers have secret headers. Raises NotFound for another worker's run, and
    Refused if the run can't be claimed.
    """
    params = _leasing(run_id, worker_id, now)
    run = fetch_one(
        sql.CLAIM, {**params, "claim_id": claim_id, "capacity": capacity, "approved": approved}
    )
    if run is not None:
        emit(_event("run.claimed", actor, run))
        return run
    run = _read_own(run_id, worker_id, now)
    if run["status"] == Status.CLAIMED:
        if run["claim_id"] == claim_id:
            return run
        raise Refused("The run has been claimed with another claimId.", run)
    if run["status"] != Status.QUEUED:
        raise Refused(f"The run is {run['status']} and can't be claimed.", run)
    if not run["is_due"]:
        raise Refused("The run is not due yet.", run)
    if run["has_headers"] and not approved:
        raise Refused(_UNAPPROVED, run, code=ErrorCode.WORKER_UNAPPROVED)
    if capacity == 0:
        raise Refused("The worker is disabled and gets no new runs.", run)
    raise Refused("The worker holds as many runs as it may.", run)


def start_run(*, worker_id: UUID, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Moves a run from claimed to running and renews its lease. If the run is running already, it returns the stored
    run.

    Raises NotFound for another worker's run, and Refused if the run can't be started.
    """
    with transaction.atomic():
        run = fetch_one(sql.START, _leasing(run_id, worker_id, now))
        if run is not None:
            emit(_event("run.started", actor, run))
            return run
        run = _read_own(run_id, worker_id, now)
        if run["status"] == Status.RUNNING:
            return run
        raise Refused(f"The run is {run['status']} and can't be started.", run)


def heartbeat_run(*, worker_id: UUID, run_id: UUID, now: datetime | None = None) -> Row:
    """Renews the lease of a run that the worker holds. Returns `status`, `cancel_requested_at` and `lease_expires_at`
    of the run.

    Raises NotFound for another worker's run, and Refused if the worker no longer holds the run and must stop it.
    """
    beat = fetch_one(sql.HEARTBEAT, _leasing(run_id, worker_id, now))
    if beat is None:
        run = _read_own(run_id, worker_id, now)
        raise Refused(f"The run is {run['status']}: this worker does not hold it.", run)
    return beat


def complete_run(
    *,
    worker_id: UUID,
    run_id: UUID,
    outcome: Outcome,
    reported: dict[str, Any],
    actor: Actor,
    now: datetime | None = None,
) -> Row:
    """Ends a run as its worker reports, and returns it. `reported` is the report as it came; it is stored if it comes
    too late to count.

    If the worker reports the same status again, it returns the stored run. If the server has ended the run because of
    its lease or deadline, the report still replaces that end, until a worker has claimed the retry. Raises NotFound for
    another worker's run, and Refused if the run can't be ended in this way.
    """
    params = {**outcome.columns(), "run_id": run_id, "worker_id": worker_id, "now": now}
    with transaction.atomic():
        if outcome.blames_infrastructure:
            lock_triggers(row["trigger_id"] for row in fetch_all(sql.TRIGGER_OF_RUN, params))
        run = fetch_one(sql.COMPLETE, params)
        if run is not None:
            canceled = run["status"] == Status.CANCELED
            _follow_up(
                [run],
                [_event("run.canceled" if canceled else "run.completed", actor, run)],
                retry_after_seconds=outcome.retry_after_seconds,
            )
            return run
        result = _complete_ended(params, outcome, reported, actor)
    # The error is raised only now, after the transaction, because the late report that was stored must be committed.
    if isinstance(result, Refused):
        raise result
    return result


def cancel_run(*, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Cancels a run: ends a queued run at once, or asks the worker of a claimed or running one to stop it. A second
    call changes nothing.

    Raises NotFound, and Refused for a run that has ended. The caller has checked that the user may cancel the run.
    """
    params = {"run_id": run_id, "now": now}
    with transaction.atomic():
        if run := fetch_one(sql.CANCEL_QUEUED, params):
            _follow_up([run], [_event("run.canceled", actor, run)])
        elif run := fetch_one(sql.REQUEST_CANCEL, params):
            emit(_event("run.cancel-requested", actor, run))
            wake_workers([run["worker_id"]])
        else:
            run = fetch_one(sql.READ, params)
            if run is None:
                raise NotFound
            if run["status"] in TERMINAL:
                raise Refused(f"The run is {run['status']} already.", run)
        return run


def reassign_queued_runs(*, trigger_id: UUID, worker_id: UUID | None) -> None:
    """Moves a trigger's queued runs to its new worker. If that is None, the runs wait until the trigger has a worker.

    The caller has locked the trigger, so that no run is queued for the old worker meanwhile.
    """
    moved = fetch_all(sql.REASSIGN, {"trigger_id": trigger_id, "worker_id": worker_id})
    wake_workers([worker_id, *(run["old_worker_id"] for run in moved)])


def move_queued_runs(*, from_worker: UUID, to_worker: UUID) -> int:
    """Moves a worker's queued runs to another worker, and returns how many. The caller has locked the triggers of these
    runs.
    """
    return execute(sql.MOVE_QUEUED, {"from_worker": from_worker, "to_worker": to_worker})


def count_unfinished_runs(*, worker_id: UUID) -> int:
    """Returns how many runs wait for a worker or are held by it."""
    row = fetch_one(sql.COUNT_UNFINISHED, {"worker_id": worker_id})
    assert row is not None
    return int(row["unfinished"])


def expire_runs(*, limit: int = 100, now: datetime | None = None) -> int:
    """Ends up to `limit` held runs whose lease or deadline has passed, in one transaction, and returns how many.

    A lease counts only while workers can reach the service: see `triggers.runs.reachability`.
    """
    params = {
        "limit": limit,
        "now": now,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        **lease_params(),
    }
    with transaction.atomic():
        overdue = fetch_all(sql.OVERDUE, params)
        if not overdue:
            return 0
        lock_triggers(row["trigger_id"] for row in overdue)
        ended = fetch_all(sql.EXPIRE, {**params, "ids": [row["id"] for row in overdue]})
        _follow_up(
            ended,
            [
                _event(
                    "run.lost" if run["ended_by"] == EndedBy.LEASE else "run.timed-out", SYSTEM, run
                )
                for run in ended
            ],
        )
    return len(ended)


def _complete_ended(
    params: Row, outcome: Outcome, reported: dict[str, Any], actor: Actor
) -> Row | Refused:
    """Handles a worker's report about a run that it does not hold. The report is a repeat, comes late, or is refused.

    Returns the run, or the error for the caller to raise. Raises NotFound for another worker's run.
    """
    # The run is locked by a statement of its own. A statement that must wait for a lock sees other rows as they were
    # before the wait, so the next statement reads them.
    execute(sql.LOCK, params)
    run = fetch_one(sql.READ, params)
    if run is None or run["worker_id"] != params["worker_id"]:
        raise NotFound
    if run["ended_by"] == EndedBy.WORKER and run["status"] == outcome.status:
        return run
    if run["status"] not in TERMINAL:
        if outcome.status == Status.CANCELED and run["status"] != Status.QUEUED:
            raise Refused("No cancel was requested for the run.", run)
        raise Refused(f"The run is {run['status']} and can't be completed.", run)
    if run["ended_by"] not in SERVER_VERDICTS:
        raise Refused(f"The run has ended as {run['status']}.", run)
    if outcome.status == Status.CANCELED and run["cancel_requested_at"] is None:
        raise Refused("No cancel was requested for the run.", run)
    retry = fetch_one(sql.RETRY_FOR_UPDATE, params)
    if retry is not None and retry["was_claimed"]:
        return _keep_late_result(run, params, reported, actor)
    return _accept_late_result(params, outcome, retry, actor)


def _keep_late_result(run: Row, params: Row, reported: dict[str, Any], actor: Actor) -> Refused:
    """Stores a worker's report that came too late to count, because its run's retry has been claimed. Only the first
    such report of a run is stored.
    """
    if not run["has_late_result"]:
        report = json.dumps(reported, cls=JSONEncoder, ensure_ascii=False)
        execute(sql.KEEP_LATE_RESULT, {**params, "late_result": report})
        emit(_event("run.late-result", actor, run, {"reported": reported.get("status")}))
    return Refused("The run was given up and its retry has been claimed.", run)


def _accept_late_result(params: Row, outcome: Outcome, retry: Row | None, actor: Actor) -> Row:
    """Lets a worker's late report replace the end that the server had decided for the run, and cancels the retry that
    waits in the queue.

    If the reported end needs a retry too, the one that waits is kept, and `retryAfterSeconds` may postpone it.
    """
    run = fetch_one(sql.COMPLETE_LATE, params)
    assert run is not None, "the row is locked"
    changes: dict[str, Any] = {"late": True}
    if retry is not None and not calls_for_retry(run):
        if execute(sql.CANCEL_RETRY, {**params, "retry_id": retry["id"]}):
            changes["canceledRetry"] = str(retry["id"])
    elif retry is not None and outcome.retry_after_seconds:
        execute(sql.POSTPONE_RETRY, {**params, "retry_id": retry["id"]})
        wake_workers([retry["worker_id"]])
    if run["error_message"] is None:
        _keep_errors([run])  # The error message that the server wrote is removed.
    _follow_up(
        [run],
        [_event("run.completed", actor, run, changes)],
        retry_after_seconds=outcome.retry_after_seconds,
    )
    return run


def _follow_up(
    ended: list[Row], events: list[Event], *, retry_after_seconds: int | None = None
) -> None:
    """Writes what follows from the end of runs, in the transaction that ended them.

    These are the runs' error messages, retries, webhook deliveries and audit rows. The workers are woken when the
    transaction commits.
    """
    _keep_errors([run for run in ended if run["error_message"] is not None])
    retries = create_retries(ended, retry_after_seconds=retry_after_seconds)
    queue_deliveries(ended)
    emit(*events, *retry_events(retries))
    wake_workers([run["worker_id"] for run in [*ended, *retries]])


def _keep_errors(runs: list[Row]) -> None:
    if runs:
        execute(
            sql.KEEP_ERRORS,
            {
                "run_ids": [run["id"] for run in runs],
                "environment_ids": [run["environment_id"] for run in runs],
                "messages": [run["error_message"] for run in runs],
            },
        )


def _leasing(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    """Returns the parameters of the SQL statements that set or renew a run's lease."""
    return {
        "run_id": run_id,
        "worker_id": worker_id,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        "now": now,
    }


def _read_own(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    """Returns the run. Raises NotFound if there is no such run or if it belongs to another worker."""
    run = fetch_one(sql.READ, {"run_id": run_id, "now": now})
    if run is None or run["worker_id"] != worker_id:
        raise NotFound
    return run


def _why_not_queued(trigger_id: UUID) -> Conflict | NotFound:
    trigger = Trigger.objects.filter(id=trigger_id, deleted_at__isnull=True).only("enabled").first()
    if trigger is None:
        return NotFound()
    if not trigger.enabled:
        return Conflict("The trigger is disabled.")
    return Conflict("The trigger has no worker.")


def _event(action: str, actor: Actor, run: Row, more: dict[str, Any] | None = None) -> Event:
    metadata = {"triggerId": str(run["trigger_id"]), "status": run["status"], **(more or {})}
    if run["fault_class"] is not None:
        metadata["faultClass"] = run["fault_class"]
    return Event(action, actor, run["environment_id"], "run", run["id"], metadata)
