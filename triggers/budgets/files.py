"""How files describe a budget."""

from triggers.budgets.serializers import BudgetBody
from triggers.budgets.services import BUDGETS
from workspaces.files.kinds import NONE, OF_ENVIRONMENT, Kind, register_kind

register_kind(
    Kind(
        resource=BUDGETS,
        body=BudgetBody,
        references={"trigger": "trigger"},
        writes={"budget": OF_ENVIRONMENT, "budget_window": NONE},
    )
)
