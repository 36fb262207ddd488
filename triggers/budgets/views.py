"""The endpoints of budgets: list, make, read, change and delete them."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from pipedai.api.fields import (
    AmountField,
    IdField,
    ListField,
    MoneyField,
    TimezoneField,
    TrueFalseField,
    WholeNumberField,
)
from pipedai.api.serializers import RowSerializer
from triggers.budgets.services import BUDGETS, OF_WINDOW, with_present_window, with_sums
from triggers.models import Budget, BudgetWindow
from workspaces.resource_views import ResourceViewSet
from workspaces.serializers import FileBody

MAX_NOTICES = 20
_INT4 = 2**31 - 1


class BudgetBody(FileBody):
    triggerId = IdField(allow_null=True, default=None)
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    timezone = TimezoneField(default="UTC")
    limitUsd = AmountField(allow_null=True, default=None)
    limitRuns = WholeNumberField(min_value=0, max_value=_INT4, allow_null=True, default=None)
    whenReached = serializers.ChoiceField(
        choices=Budget.WhenReached.choices, default=Budget.WhenReached.HOLD
    )
    noticeAtPct = ListField(
        child=WholeNumberField(min_value=1, max_value=100),
        max_length=MAX_NOTICES,
        default=[80, 100],
    )
    reserveUsd = AmountField(default=1)
    countNotional = TrueFalseField(default=True)

    def validate_noticeAtPct(self, value: list[int]) -> list[int]:  # noqa: N802
        return sorted(set(value))


class BudgetWindowSerializer(RowSerializer):
    """The day or month in which a budget counts now."""

    of = BudgetWindow
    shows = "startsAt endsAt"


class BudgetSerializer(RowSerializer):
    """A budget, with what its present window has used."""

    of = (Budget, BudgetWindow)
    shows = (
        "id key managedBy environmentId name triggerId triggerName period timezone limitUsd"
        " limitRuns whenReached noticeAtPct reserveUsd countNotional window spentUsd reservedUsd"
        " notionalUsd runs remainingUsd createdAt updatedAt"
    )
    triggerName = serializers.CharField(source="trigger__name", allow_null=True)
    window = BudgetWindowSerializer()
    spentUsd = MoneyField(source="spent")
    reservedUsd = MoneyField(source="reserved")
    notionalUsd = MoneyField(source="notional")
    remainingUsd = MoneyField(source="remaining", allow_null=True)


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

    def rows(self) -> QuerySet[Any, Any]:
        budgets = with_present_window(BUDGETS.live)
        rows: QuerySet[Any, Any] = budgets.values(*self.columns, "trigger__name", "now", *OF_WINDOW)
        return rows

    def shown(self, rows: list[Any]) -> Any:
        return super().shown([with_sums(row) for row in rows])
