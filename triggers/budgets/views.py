"""The endpoints of budgets: list, make, read, change and delete them."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from pipedai.api.fields import (
    AmountField,
    IdField,
    ListField,
    MoneyField,
    NameField,
    TimezoneField,
    TrueFalseField,
    WholeNumberField,
)
from pipedai.api.serializers import RowSerializer, StrictBody
from triggers.budgets.services import BUDGETS, budgets, with_sums
from triggers.models import Budget
from workspaces.resource_views import ResourceViewSet
from workspaces.tenant_columns import KeyField, LabelField

MAX_NOTICES = 20
_INT4 = 2**31 - 1


class BudgetBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
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

    startsAt = serializers.DateTimeField()
    endsAt = serializers.DateTimeField()


class BudgetSerializer(RowSerializer):
    """A budget, with what its present window has used."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(allow_null=True)
    environmentId = serializers.UUIDField()
    name = serializers.CharField()
    triggerId = serializers.UUIDField(allow_null=True)
    triggerName = serializers.CharField(source="trigger__name", allow_null=True)
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    timezone = serializers.CharField()
    limitUsd = MoneyField(allow_null=True)
    limitRuns = serializers.IntegerField(allow_null=True)
    whenReached = serializers.ChoiceField(choices=Budget.WhenReached.choices)
    noticeAtPct = serializers.ListField(child=serializers.IntegerField())
    reserveUsd = MoneyField()
    countNotional = serializers.BooleanField()
    window = BudgetWindowSerializer()
    spentUsd = MoneyField(source="spent")
    reservedUsd = MoneyField(source="reserved")
    notionalUsd = MoneyField(source="notional")
    runs = serializers.IntegerField()
    remainingUsd = MoneyField(source="remaining", allow_null=True)
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


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
        return budgets()

    def shown(self, rows: list[Any]) -> Any:
        return super().shown([with_sums(row) for row in rows])
