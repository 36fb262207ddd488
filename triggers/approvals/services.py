"""Decides about what runs ask for, and lets a worker's gateway use an approval once.

Each is a compare-and-set: it locks or changes the run first, and then the approval, if nobody else has done so.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Forbidden, NotFound
from pipedai.events import Actor, Event, emit
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_one, fetch_row
from pipedai.turns import due_rows
from pipedai.wakeups import wake_workers
from triggers.runs import statements as sql
from triggers.runs.conditions import OF_ENVIRONMENT
from triggers.runs.lifecycle import Refused, read_own_run
from triggers.runs.statements import LOCK_TRIGGER
from triggers.runs.waiting import settle_changes
from triggers.states import HELD, ApprovalStatus
from workspaces.locks import hold_environment, hold_role_of_user
from workspaces.roles import Role

_READ = """
SELECT environment_id, trigger_id, run_id, tool, status, role, barred FROM approval WHERE id = %(approval_id)s
"""

_DECIDE = f"""
UPDATE approval SET status = %(status)s, closed_at = {NOW}, decided_by = %(user_id)s, reason = %(reason)s
WHERE id = %(approval_id)s AND status = 'pending'
RETURNING id
"""  # noqa: S608

# The run is locked first, so that the server can't give it up meanwhile. Only the run's last question counts.
_SPEND = f"""
WITH held AS (
    SELECT id, environment_id FROM run
    WHERE id = %(run_id)s AND worker_id = %(worker_id)s AND slot IS NOT NULL AND {OF_ENVIRONMENT}
    FOR NO KEY UPDATE)
UPDATE approval a SET spent_at = {NOW}
FROM held
WHERE a.id = %(approval_id)s AND a.run_id = held.id AND a.environment_id = held.environment_id
    AND a.status = 'approved' AND a.spent_at IS NULL
    AND NOT EXISTS (
        SELECT FROM approval n
        WHERE n.run_id = a.run_id AND n.environment_id = a.environment_id AND n.created_at > a.created_at)
RETURNING a.id, a.environment_id, a.trigger_id, a.run_id, a.tool, a.spent_at
"""  # noqa: S608

# The approvals of which people are reminded. Those that a decision or the end of a run is changing are left out,
# because they need no reminder any more.
TO_REMIND_OF = due_rows(
    "approval", waits="status = 'pending' AND remind_at IS NOT NULL", order="remind_at"
)
_REMINDED = f"""
WITH reminded AS (
    UPDATE approval SET remind_at = NULL WHERE id = ANY(%(ids)s) RETURNING id, environment_id, expires_at)
SELECT id, environment_id FROM reminded WHERE expires_at > {NOW}
"""  # noqa: S608


def decide_approval(
    *,
    approval_id: UUID,
    approve: bool,
    reason: str | None,
    actor: Actor,
    now: datetime | None = None,
) -> None:
    """Stores the user's decision, and queues the run again for its worker alone. Raises Conflict if it is too late,
    Forbidden for a user who may not decide, and the errors of `hold_role_of_user`.
    """
    params = {"approval_id": approval_id, "now": now}
    with transaction.atomic():
        approval = fetch_row(_READ, params)
        hold_environment(approval["environment_id"])
        hold_role_of_user(actor.id, approval["environment_id"], Role(approval["role"]))
        # A change of the trigger bars the user who makes it. One may be under way, so `barred` is read after the lock.
        execute(LOCK_TRIGGER, approval)
        if actor.id in fetch_row(_READ, params)["barred"]:
            raise Forbidden(
                "Somebody else has to decide: you requested the run, or you have changed its trigger."
            )
        status = ApprovalStatus.APPROVED if approve else ApprovalStatus.REJECTED
        its_run = {"run_id": approval["run_id"], "environment_id": approval["environment_id"]}
        run = fetch_one(sql.CONTINUE, {**params, **its_run})
        decision = {"status": status.value, "user_id": actor.id, "reason": reason}
        # The run may have gone on, and wait for another decision by now. Then the error rolls everything back.
        if run is None or fetch_one(_DECIDE, {**params, **decision}) is None:
            raise _too_late(fetch_row(_READ, params)["status"])
        settle_changes(trigger_id=approval["trigger_id"], decided_by=actor.id)
        emit(_event("approval.decided", actor, approval_id, approval, decision=status.value))
        wake_workers([run["worker_id"]])


def _too_late(status: str) -> Conflict:
    """Returns why nobody can decide. A pending approval has expired, and the scheduler is about to end the run."""
    if status in (ApprovalStatus.PENDING, ApprovalStatus.EXPIRED):
        return Conflict(
            "Nobody decided in time.",
            code=ErrorCode.APPROVAL_EXPIRED,
            approvalStatus=ApprovalStatus.EXPIRED.value,
        )
    return Conflict(
        "The run was canceled."
        if status == ApprovalStatus.WITHDRAWN
        else f"Somebody has {status} it already.",
        code=ErrorCode.APPROVAL_DECIDED,
        approvalStatus=status,
    )


def spend_approval(
    *,
    worker_id: UUID,
    run_id: UUID,
    approval_id: UUID,
    actor: Actor,
    now: datetime | None = None,
) -> Row:
    """Lets the gateway of the worker that holds the run forward the approved call, once. Returns `id` and `spent_at`.
    Raises NotFound, and Conflict the second time, or if the call was not approved or the run is not held.
    """
    params = {"worker_id": worker_id, "run_id": run_id, "approval_id": approval_id, "now": now}
    with transaction.atomic():
        if spent := fetch_one(_SPEND, params):
            emit(_event("approval.spent", actor, approval_id, spent))
            return spent
    run = read_own_run(run_id, worker_id, now)
    approval = fetch_one(_READ, params)
    if approval is None or approval["run_id"] != run_id:
        raise NotFound
    if run["status"] not in HELD:
        raise Refused(f"The run is {run['status']}: this worker does not hold it.", run)
    raise Conflict(
        "The call was not approved, or was forwarded before.",
        code=ErrorCode.APPROVAL_UNSPENDABLE,
        approvalStatus=approval["status"],
    )


def note_reminders(due: list[Row], now: datetime | None = None) -> list[Row]:
    """Notes that people were reminded of these approvals, so that each is told only once ever. Returns those that can
    still be decided, of which the caller's transaction must remind people.
    """
    return fetch_all(_REMINDED, {"ids": [row["id"] for row in due], "now": now})


def _event(action: str, actor: Actor, approval_id: UUID, approval: Row, **more: str) -> Event:
    metadata = {
        "runId": str(approval["run_id"]),
        "triggerId": str(approval["trigger_id"]),
        "tool": approval["tool"],
        **more,
    }
    return Event(action, actor, approval["environment_id"], "approval", approval_id, metadata)
