"""Makes budgets, and tells what their present windows have used."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from pipedai.events import Actor
from testing.world.cast import Cast
from triggers.budgets.services import BUDGETS
from triggers.budgets.views import BudgetBody
from triggers.models import Budget, BudgetWindow


def add_budget(cast: Cast, **values: Any) -> Budget:
    """Adds a budget of the cast's environment, as its owner does. Values have their attribute names; the budget lasts a
    day unless they say otherwise. Without a limit among them it gets one that is never reached.
    """
    body = BudgetBody(data={"name": "Everything", "period": "day"})
    body.is_valid(raise_exception=True)
    if values.get("limit_usd") is None and values.get("limit_runs") is None:
        values["limit_runs"] = 2**31 - 1
    for name in ("limit_usd", "reserve_usd"):
        if values.get(name) is not None:
            values[name] = Decimal(values[name])
    budget_id = BUDGETS.create(
        environment_id=cast.environment.id,
        actor=Actor("user", cast.owner.id),
        values={**body.validated_data, **values},
    )
    return Budget.objects.get(id=budget_id)


def used(budget: Budget | UUID) -> tuple[str, str, int]:
    """Returns what the newest window of a budget has spent and reserved, as short decimals, and how many runs."""
    budget_id = budget.id if isinstance(budget, Budget) else budget
    window = BudgetWindow.objects.filter(budget_id=budget_id).order_by("-generation", "-starts_at")
    row = window.get() if window.count() == 1 else window[0]
    return _short(row.spent_usd), _short(row.reserved_usd), row.runs


def _short(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
