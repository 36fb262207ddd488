"""Creates, changes and deletes budgets (SPEC §17), each with its audit event in the same transaction."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.errors import Invalid
from pipedai.api.renderers import set_changed
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import execute
from triggers.budgets.settling import wake_held_back
from triggers.models import Budget, Trigger
from workspaces.ceilings import check_ceiling
from workspaces.files.columns import keeping_keys
from workspaces.locks import hold_role, lock_environment, lock_row
from workspaces.roles import Role

# What decides which runs a window counts. If one of these changes, the budget counts anew.
_COUNTED_BY = frozenset({"triggerId", "period", "timezone"})

# Makes the scheduler look at the windows of a budget again whose notices may have to change.
_LOOK_AGAIN = """
WITH found AS (
    SELECT id FROM budget_window
    WHERE budget_id = %(budget_id)s AND (noticed_pct > 0 OR ends_at > statement_timestamp())
    ORDER BY id FOR NO KEY UPDATE)
UPDATE budget_window w SET changes = w.changes + 1, is_changed = true FROM found WHERE w.id = found.id
"""


def create_budget(
    *, environment_id: UUID, actor: Actor, values: dict[str, Any], id_: UUID | None = None
) -> UUID:
    """Creates a budget from a BudgetBody's values; it counts runs that are claimed from now on. Returns its id, which
    is `id_` if that is given. Raises NotFound,
    Invalid for a missing trigger, CeilingReached, and the errors of `hold_role`.
    """
    budget = Budget(id=id_ or new_id(), environment_id=environment_id, **values)
    with keeping_keys():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        _check_room_for_budget(environment_id)
        _check_trigger(environment_id, budget.trigger_id)
        budget.save(force_insert=True)
        emit(_event("budget.created", budget, actor, {"name": budget.name}))
    return budget.id


def update_budget(*, budget_id: UUID, values: dict[str, Any], actor: Actor) -> None:
    """Changes the given values of a budget. Another trigger, period or time zone begins a new window. Runs that were
    claimed before are settled in their old windows. Raises NotFound, Invalid, and the errors of `hold_role`.
    """
    with keeping_keys():
        budget = _locked(budget_id, actor)
        changes = set_changed(budget, values)
        if not changes:
            return
        if "triggerId" in changes:
            _check_trigger(budget.environment_id, budget.trigger_id)
        if changes.keys() & _COUNTED_BY:
            budget.generation += 1
        budget.updated_at = Now()
        budget.save(force_update=True)
        emit(_event("budget.updated", budget, actor, changes))
        _apply(budget)


def delete_budget(*, budget_id: UUID, actor: Actor) -> None:
    """Marks a budget as deleted. Runs that it held back can go out; reservations are still settled. Raises NotFound."""
    with transaction.atomic():
        budget = _locked(budget_id, actor)
        Budget.objects.filter(id=budget.id).update(deleted_at=Now())
        emit(_event("budget.deleted", budget, actor, {"name": budget.name}))
        _apply(budget)


def _apply(budget: Budget) -> None:
    """Makes the scheduler and the waiting polls notice that the budget has changed."""
    execute(_LOOK_AGAIN, {"budget_id": budget.id})
    wake_held_back([budget.environment_id])


def _locked(budget_id: UUID, actor: Actor) -> Budget:
    return lock_row(Budget.objects.filter(id=budget_id, deleted_at__isnull=True), actor)


def _check_room_for_budget(environment_id: UUID) -> None:
    live = Budget.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    check_ceiling("budgets", "budgets", environment_id=environment_id, rows=live)


def _check_trigger(environment_id: UUID, trigger_id: UUID | None) -> None:
    live = Trigger.objects.filter(environment_id=environment_id, deleted_at__isnull=True)
    if trigger_id is not None and not live.filter(id=trigger_id).exists():
        raise Invalid({"triggerId": ["No such trigger in this environment."]})


def _event(action: str, budget: Budget, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, budget.environment_id, "budget", budget.id, metadata)
