"""The state machine of a run from its claim to its end (docs/run-lifecycle.md). `queueing` makes runs, and `reports`
ends them as their workers say.

Each transition is one UPDATE whose condition names the expected state, so that only one of two processes succeeds. The
state is read for an error message, only if nothing was changed. All that a transition causes is written in its
transaction. docs/architecture.md has the order of locks.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Unpack
from uuid import UUID

from django.conf import settings
from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.sql import Row, execute, fetch_all, fetch_one
from pipedai.turns import Turns
from pipedai.wakeups import wake_workers
from triggers.budgets.spending import reserve
from triggers.heartbeats import lease_params
from triggers.runs import conditions
from triggers.runs import statements as sql
from triggers.runs.ending import ended_event, follow_up, run_event
from triggers.runs.outcome import ToolCalls, counts_of
from triggers.runs.routing import is_member
from triggers.runs.waiting import close_approvals
from triggers.states import TERMINAL, UNHELD, ApprovalStatus, EndedBy, Status


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
    """Claims a run, as `claim_run` says, or writes nothing and returns None. Raises Refused if a budget has no room.

    `limited_trigger` is the run's trigger, if it limits how many of its runs may be held at once. With `once`, it
    claims nothing if the worker holds a run that it claimed with this `claim_id`. `then` is called when the run is
    claimed, and before budgets are locked.
    """
    if limited_trigger is not None:
        execute(sql.LOCK_TRIGGER, {"trigger_id": limited_trigger})
    params = {
        **_leasing(run_id, worker_id, now),
        "claim_id": claim_id,
        **conditions.NO_FEATURES,
        **limits,
    }
    statement = sql.claim(limited=limited_trigger is not None, start=start, once=once)
    if (claimed := fetch_one(statement, params)) is None:
        return None
    emit(*_claim_events(claimed, actor))
    then()
    # Budgets are locked last, because from here on the claims of an environment wait for each other.
    if claimed["has_budgets"] and not reserve(claimed):
        message, code = _NO_ROOM
        raise Refused(message, {"status": Status.QUEUED}, code=code)
    return claimed


def _claim_events(claimed: Row, actor: Actor) -> list[Event]:
    if claimed["status"] == Status.CLAIMED:
        return [run_event("run.claimed", actor, claimed)]
    return [
        run_event("run.claimed", actor, {**claimed, "status": Status.CLAIMED.value}),
        run_event("run.started", actor, claimed),
    ]


def start_run(*, worker_id: UUID, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Moves a run from claimed to running, and renews its lease. A running run stays. Raises NotFound, Refused."""
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
    """Renews the lease of a held run, and returns `status`, `cancel_requested_at`, `lease_expires_at` and
    `record_events`. It stores `tool_calls`, unless later counts are stored, and `session_id`, which is needed if the
    worker is lost. Raises NotFound, and Refused if the worker must stop the run.
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


def watch_run(*, run_id: UUID) -> None:
    """Lets the worker of a run that has not ended send its events as they come, from its next heartbeat on."""
    execute(sql.WATCH, {"run_id": run_id})


def cancel_run(*, run_id: UUID, actor: Actor, now: datetime | None = None) -> Row:
    """Ends a queued or waiting run, or asks the worker of a claimed or running one to stop it. A second call changes
    nothing. Raises NotFound, and Refused for an ended run. The caller has checked the user's role.
    """
    params = {"run_id": run_id, "now": now}
    with transaction.atomic():
        if run := _cancel(params, actor):
            return run
        run = fetch_one(sql.READ, params)
        if run is not None and run["status"] in UNHELD:
            # Between the two statements, the run's worker let it wait, or a person decided. So it is locked, and tried
            # again.
            execute(sql.LOCK, params)
            if canceled := _cancel(params, actor):
                return canceled
            run = fetch_one(sql.READ, params)
        if run is None:
            raise NotFound
        if run["status"] in TERMINAL:
            raise Refused(f"The run is {run['status']} already.", run)
        return run


def _cancel(params: Row, actor: Actor) -> Row | None:
    """Ends the run, or asks its worker to stop it, as `cancel_run` says. Returns None if it has changed nothing."""
    if run := fetch_one(sql.CANCEL_UNHELD, params):
        if run["spells"]:
            close_approvals([run], ApprovalStatus.WITHDRAWN, now=params["now"])
        follow_up([run], [run_event("run.canceled", actor, run)])
    elif run := fetch_one(sql.REQUEST_CANCEL, params):
        emit(run_event("run.cancel-requested", actor, run))
        wake_workers([run["worker_id"]])
    return run


def expire_runs(*, limit: int = 100, now: datetime | None = None) -> int:
    """Ends up to `limit` claimed or running runs whose lease or deadline has passed, and returns how many. A lease
    counts only while workers can reach the service (`triggers.heartbeats`).
    """
    params = {
        "limit": limit,
        "now": now,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        **lease_params(),
    }
    return _end_found(
        sql.OVERDUE,
        sql.EXPIRE,
        params,
        lambda run: "run.lost" if run["ended_by"] == EndedBy.LEASE else "run.timed-out",
    )


def expire_queued_runs(*, limit: int = 100, now: datetime | None = None) -> int:
    """Ends up to `limit` runs that no worker may claim any more, and returns how many: runs whose start deadline has
    passed, whose session nobody continued in time, or about whose call nobody decided in time.
    """
    params = {"limit": limit, "now": now}
    return _end_found(
        sql.UNSTARTABLE,
        sql.END_UNSTARTABLE,
        params,
        lambda run: (
            "run.approval-expired"
            if run["ended_by"] == EndedBy.APPROVAL_EXPIRED
            else "run.not-started"
        ),
    )


def _end_found(turns: Turns, end: str, params: Row, action: Callable[[Row], str]) -> int:
    """Ends the runs of a turn, which locks their triggers, by the statement `end`, and returns how many. `action` says
    which action the end of a run is.
    """

    def end_runs(found: list[Row]) -> int:
        ids = [run["id"] for run in found]
        # If the table is partitioned by environment, the environments make PostgreSQL read only their partitions.
        environment_ids = list({run["environment_id"] for run in found})
        ended = fetch_all(end, {**params, "ids": ids, "environment_ids": environment_ids})
        close_approvals(
            [run for run in ended if run["spells"]], ApprovalStatus.EXPIRED, now=params["now"]
        )
        follow_up(ended, [ended_event(action(run), SYSTEM, run) for run in ended])
        return len(ended)

    return turns.take(end_runs, **params)


def _leasing(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    """Returns the parameters of the SQL statements that set or renew a run's lease."""
    return {
        "run_id": run_id,
        "worker_id": worker_id,
        "lease_seconds": settings.RUN_LEASE_SECONDS,
        "now": now,
    }


def read_own_run(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    run = fetch_one(sql.READ, {"run_id": run_id, "now": now})
    if run is None or run["worker_id"] != worker_id:
        raise NotFound
    return run


def _read_claimable(run_id: UUID, worker_id: UUID, now: datetime | None) -> Row:
    run = fetch_one(sql.READ, {"run_id": run_id, "now": now})
    if run is None or (run["worker_id"] != worker_id and not is_member(run["pool_id"], worker_id)):
        raise NotFound
    return run


# After this many seconds a worker may ask again for a run's credentials, or for a run that waits for them.
CREDENTIALS_SECONDS = 5


class Refused(Conflict):
    """The error 409 for a transition of a run that is not possible now. The answer names the run's state."""

    def __init__(
        self,
        message: str,
        run: Row,
        *,
        code: ErrorCode = ErrorCode.RUN_STATE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, headers=headers, status=run["status"])


class NotReady(Refused):
    """The error 409 for a trigger whose connection has no fresh token. The error rolls the transaction back, so the
    caller asks a scheduler for a token after that.
    """

    def __init__(self, run: Row, connection_id: UUID) -> None:
        super().__init__(
            "The trigger's connection has no fresh token.",
            run,
            code=ErrorCode.CONNECTION_NOT_READY,
            headers={"Retry-After": str(CREDENTIALS_SECONDS)},
        )
        self.connection_id = connection_id


UNAPPROVED = (
    "The worker gets no run whose trigger has headers, until an admin approves it"
    " (POST /workers/:id/approve): it was registered by a key's token."
)

_LACKS_FEATURES = (
    "The claim does not name a feature that the run needs: approvals, if its trigger has rules for them or the run has"
    " waited by such rules, or before, if it looks for something new first."
)

_FIRST = ("Another worker comes first for the run.", ErrorCode.FIRST_WORKER)
_NO_ROOM = ("A budget has no room for the run.", ErrorCode.BUDGET_EXHAUSTED)

# The message for a claim by the first of these conditions that does not hold.
_UNMET = {
    "is_not_paused": ("The environment is paused.", ErrorCode.ENVIRONMENT_PAUSED),
    "is_due": ("The run is not due yet.", ErrorCode.NOT_DUE),
    "is_in_time": ("The run's start deadline has passed.", ErrorCode.START_DEADLINE),
    **dict.fromkeys(("may_start", "is_offered", "is_not_avoided"), _FIRST),
    "headers_may_go": (UNAPPROVED, ErrorCode.WORKER_UNAPPROVED),
    "features_may_go": (_LACKS_FEATURES, ErrorCode.WORKER_LACKS_FEATURES),
    "is_not_limited": (
        "The usage limit of the worker's account was reached: it gets no new runs for now.",
        ErrorCode.WORKER_LIMITED,
    ),
    "budgets_have_room": _NO_ROOM,
    "is_enabled": ("The worker is paused and gets no new runs.", ErrorCode.WORKER_DISABLED),
    "trigger_has_room": (
        "As many runs of the trigger are held as its maxConcurrentRuns allows.",
        ErrorCode.TRIGGER_FULL,
    ),
}


def refusal_of_claim(run: Row, met: Row, capacity: int) -> Refused:
    met = {**met, "is_not_limited": met["limited_until"] is None, "is_enabled": capacity > 0}
    for name, (message, code) in _UNMET.items():
        if not met[name]:
            return Refused(message, run, code=code)
    if met["free_slots"] and not met["connection_is_ready"]:
        return NotReady(run, met["connection_id"])
    return Refused("The worker holds as many runs as it may.", run, code=ErrorCode.WORKER_FULL)
