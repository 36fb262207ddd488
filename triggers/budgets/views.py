"""The endpoints of budgets: list, make, read, change and delete them."""

from typing import Any

from django.db.models import QuerySet

from triggers.budgets.queries import budgets, with_sums
from triggers.budgets.serializers import BudgetBody, BudgetSerializer
from triggers.budgets.services import BUDGETS
from workspaces.resource_views import ResourceViewSet


class BudgetViewSet(ResourceViewSet):
    tag = "Budgets"
    resource = BUDGETS
    body = BudgetBody
    serializer = BudgetSerializer
    example = {
        "name": "Everything",
        "period": "month",
        "timezone": "Europe/Berlin",
        "limitUsd": "200",
        "whenReached": "hold",
    }
    change = {"limitUsd": "300"}

    @classmethod
    def rows(cls) -> QuerySet[Any, Any]:
        return budgets()

    @classmethod
    def shown(cls, rows: list[Any]) -> Any:
        return super().shown([with_sums(row) for row in rows])
