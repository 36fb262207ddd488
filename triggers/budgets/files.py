"""How files describe a budget."""

from triggers.budgets import services
from triggers.budgets.serializers import BudgetBody
from triggers.models import Budget
from workspaces.files.kinds import NONE, OF_ENVIRONMENT, Kind, register_kind

register_kind(
    Kind(
        name="budget",
        model=Budget,
        body=BudgetBody,
        create=services.create_budget,
        update=lambda id_, **said: services.update_budget(budget_id=id_, **said),
        delete=lambda id_, **said: services.delete_budget(budget_id=id_, **said),
        references={"trigger": "trigger"},
        writes={"budget": OF_ENVIRONMENT, "budget_window": NONE},
    )
)
