"""Checks the bodies of requests about budgets, and renders budgets for the API."""

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
from triggers.models import Budget
from workspaces.files.columns import KeyField, LabelField

MAX_NOTICES = 20
_INT4 = 2**31 - 1


class BudgetBody(StrictBody):
    key = KeyField()
    managedBy = LabelField()
    name = NameField(max_length=200)
    triggerId = IdField(source="trigger_id", allow_null=True, required=False, default=None)
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    timezone = TimezoneField(required=False, default="UTC")
    limitUsd = AmountField(source="limit_usd", allow_null=True, required=False, default=None)
    limitRuns = WholeNumberField(
        source="limit_runs",
        min_value=0,
        max_value=_INT4,
        allow_null=True,
        required=False,
        default=None,
    )
    whenReached = serializers.ChoiceField(
        source="when_reached",
        choices=Budget.WhenReached.choices,
        required=False,
        default=Budget.WhenReached.HOLD,
    )
    noticeAtPct = ListField(
        source="notice_at_pct",
        child=WholeNumberField(min_value=1, max_value=100),
        max_length=MAX_NOTICES,
        required=False,
        default=[80, 100],
    )
    reserveUsd = AmountField(source="reserve_usd", required=False, default=1)
    countNotional = TrueFalseField(source="count_notional", required=False, default=True)

    def validate_noticeAtPct(self, value: list[int]) -> list[int]:  # noqa: N802
        return sorted(set(value))


class BudgetWindowSerializer(RowSerializer):
    """The day or month in which a budget counts now."""

    startsAt = serializers.DateTimeField(source="starts_at")
    endsAt = serializers.DateTimeField(source="ends_at")


class BudgetSerializer(RowSerializer):
    """A budget, with what its present window has used."""

    id = serializers.UUIDField()
    key = serializers.CharField(allow_null=True)
    managedBy = serializers.CharField(source="managed_by", allow_null=True)
    environmentId = serializers.UUIDField(source="environment_id")
    name = serializers.CharField()
    triggerId = serializers.UUIDField(source="trigger_id", allow_null=True)
    triggerName = serializers.CharField(source="trigger__name", allow_null=True)
    period = serializers.ChoiceField(choices=Budget.Period.choices)
    timezone = serializers.CharField()
    limitUsd = MoneyField(source="limit_usd", allow_null=True)
    limitRuns = serializers.IntegerField(source="limit_runs", allow_null=True)
    whenReached = serializers.ChoiceField(source="when_reached", choices=Budget.WhenReached.choices)
    noticeAtPct = serializers.ListField(source="notice_at_pct", child=serializers.IntegerField())
    reserveUsd = MoneyField(source="reserve_usd")
    countNotional = serializers.BooleanField(source="count_notional")
    window = BudgetWindowSerializer()
    spentUsd = MoneyField(source="spent")
    reservedUsd = MoneyField(source="reserved")
    notionalUsd = MoneyField(source="notional")
    runs = serializers.IntegerField()
    remainingUsd = MoneyField(source="remaining", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")
