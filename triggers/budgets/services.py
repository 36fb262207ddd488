"""Creates, changes and deletes budgets (SPEC §17), each with its audit event in the same transaction."""

from typing import Any

from pipedai.api.errors import Invalid
from pipedai.events import Actor
from pipedai.sql import execute
from triggers.budgets.settling import wake_held_back
from triggers.models import Budget, Trigger
from workspaces.resources import Resource

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


class Budgets(Resource[Budget]):
    """A new budget counts runs that are claimed from now on. Another trigger, period or time zone begins a new window;
    runs that were claimed before are settled in their old windows. Runs that a deleted budget held back can go out, and
    its reservations are still settled.
    """

    noun = "budget"
    model = Budget

    def apply(self, budget: Budget, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        changes = super().apply(budget, values, actor)
        if "triggerId" in changes and budget.trigger_id is not None:
            triggers = Trigger.objects.filter(
                environment_id=budget.environment_id, deleted_at__isnull=True
            )
            if not triggers.filter(id=budget.trigger_id).exists():
                raise Invalid({"triggerId": ["No such trigger in this environment."]})
        if changes.keys() & _COUNTED_BY and not budget._state.adding:
            budget.generation += 1
        return changes

    def follow_up(self, budget: Budget, before: Budget | None, actor: Actor) -> None:
        """Makes the scheduler and the waiting polls notice that the budget has changed."""
        if before is not None:
            execute(_LOOK_AGAIN, {"budget_id": budget.id})
            wake_held_back([budget.environment_id])


BUDGETS = Budgets()
