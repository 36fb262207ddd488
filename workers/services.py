"""Changes, approves and deregisters workers, and revokes their tokens, each with its audit event."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid, or_not_found
from pipedai.api.renderers import api_name, counted, iso_time
from pipedai.events import Actor, Event, emit
from pipedai.redaction import REDACTED
from pipedai.sql import database_now
from pipedai.wakeups import wake_workers
from triggers.models import Trigger
from triggers.runs.routing import count_unfinished_runs, open_to_pools, reassign_runs_of_worker
from triggers.runs.waiting import note_change
from workers.models import Worker
from workers.pools.services import leave_all_pools, lock_resuming_triggers
from workers.presence import set_account
from workspaces.locks import changing, lock_row

_LIVE = Worker.objects.filter(deleted_at__isnull=True)


def update_worker(*, worker: Worker, values: dict[str, Any], actor: Actor) -> None:
    """Changes the fields that the body names. A disabled worker finishes its runs and gets no others. `limited_until`,
    which is None, lifts the usage limit of this worker alone. Raises NotFound, and the errors of `hold_role`.
    """
    with transaction.atomic():
        locked = _locked(worker, actor)
        changes: dict[str, Any] = {}
        for attribute in ("label", "max_concurrency"):
            old = getattr(locked, attribute)
            if (new := values.get(attribute, old)) != old:
                changes[api_name(attribute)] = [old, new]
                setattr(locked, attribute, new)
        was_disabled = locked.disabled_at is not None
        if values.get("disabled", was_disabled) != was_disabled:
            changes["disabled"] = [was_disabled, values["disabled"]]
            locked.disabled_at = Now() if values["disabled"] else None
        account_id = values.get("account_id", locked.account_id)
        if account_id != locked.account_id:
            set_account(
                environment_id=locked.environment_id, worker_id=locked.id, account_id=account_id
            )
            # The audit row does not show the account.
            changes["accountId"] = REDACTED
        if "limited_until" in values:
            Worker.objects.filter(id=locked.id).update(limited_until=None)
            limit = locked.limited_until
            if limit is not None and limit > database_now():
                changes["limitedUntil"] = [iso_time(limit), None]
        if not changes:
            return
        locked.save(update_fields=["label", "max_concurrency", "disabled_at"])
        if changes.get("disabled") == [False, True]:
            open_to_pools([locked.id])
        wake_workers([locked.id])
        emit(_event("worker.updated", locked, actor, changes))


def approve_worker(*, worker: Worker, actor: Actor) -> None:
    """Approves the worker, which now also gets MCP headers. Raises NotFound, and the errors of `hold_role`."""
    with transaction.atomic():
        locked = _locked(worker, actor)
        if locked.unapproved_since is None:
            return
        locked.unapproved_since = None
        locked.save(update_fields=["unapproved_since"])
        # The worker's waiting poll asks the database again, because runs with MCP headers may be due for it now.
        wake_workers([locked.id])
        emit(_event("worker.approved", locked, actor, {"hostname": locked.hostname}))


def revoke_token(*, worker: Worker, actor: Actor) -> None:
    """Revokes the token, so that the worker must register again. Raises NotFound, and the errors of `hold_role`."""
    with transaction.atomic():
        locked = _locked(worker, actor)
        if locked.token_digest is None:
            return
        locked.token_digest = None
        locked.save(update_fields=["token_digest"])
        open_to_pools([locked.id])
        # The worker's waiting poll wakes up and answers 401, because its token is revoked.
        wake_workers([locked.id])
        emit(_event("worker.token-revoked", locked, actor, {}))


def deregister_worker(*, worker: Worker, reassign_to: UUID | None, actor: Actor) -> None:
    """Marks a worker as deleted, removes its token and ends its memberships. With `reassign_to`, its triggers, queued
    runs and later retries of its held runs go to that worker. Without it, raises Conflict if there are triggers or
    unfinished runs. Raises NotFound, and Invalid for a bad `reassign_to`.
    """
    if reassign_to == worker.id:
        raise Invalid({"reassignTo": ["Must be another machine."]})
    with changing(worker.environment_id, actor):
        both = _LIVE.filter(environment_id=worker.environment_id, id__in=[worker.id, reassign_to])
        locked = {each.id: each for each in both.select_for_update(no_key=True).order_by("id")}
        leaving = or_not_found(locked.get(worker.id))
        changes: dict[str, Any] = {"hostname": leaving.hostname}
        if reassign_to is not None and reassign_to not in locked:
            raise Invalid({"reassignTo": ["No such machine in this environment."]})
        pools = leave_all_pools(environment_id=leaving.environment_id, worker_id=leaving.id)
        triggers = lock_resuming_triggers(pools, worker_id=worker.id)
        if reassign_to is not None:
            Trigger.objects.filter(id__in=triggers).update(worker_id=reassign_to, updated_at=Now())
        runs = reassign_runs_of_worker(worker_id=worker.id)
        if reassign_to is None:
            held = {
                "trigger": len(triggers),
                "unfinished run": count_unfinished_runs(worker_id=worker.id),
            }
            if counts := [counted(number, name) for name, number in held.items() if number]:
                raise Conflict(
                    f"The machine still has {' and '.join(counts)}: name another one in reassignTo.",
                    code=ErrorCode.HAS_CHILDREN,
                )
        else:
            note_change(environment_id=leaving.environment_id, trigger_ids=triggers, actor=actor)
            changes |= {"reassignedTo": str(reassign_to), "triggers": len(triggers), "runs": runs}
        Worker.objects.filter(id=worker.id).update(deleted_at=Now(), token_digest=None)
        wake_workers([worker.id, reassign_to])
        emit(_event("worker.deregistered", leaving, actor, changes))


def _locked(worker: Worker, actor: Actor) -> Worker:
    return lock_row(_LIVE.filter(id=worker.id), actor, environment_id=worker.environment_id)


def _event(action: str, worker: Worker, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, worker.environment_id, "worker", worker.id, metadata)
