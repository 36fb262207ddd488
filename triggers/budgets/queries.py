"""Reads budgets for the API and the staff admin, with what their present windows have used."""

from decimal import Decimal
from typing import Any

from django.db.models import F, FilteredRelation, Q, QuerySet
from django.db.models.functions import Now

from triggers.budgets.periods import period_around
from triggers.models import Budget

_BUDGET_COLUMNS = (
    "id", "key", "managed_by", "environment_id", "name", "trigger_id", "period", "timezone", "limit_usd",
    "limit_runs", "when_reached", "notice_at_pct", "reserve_usd", "count_notional", "created_at", "updated_at",
)  # fmt: skip
_SUMS = ("spent_usd", "reserved_usd", "notional_spent_usd", "notional_reserved_usd")
_OF_WINDOW = ("starts_at", "ends_at", "runs", *_SUMS)


def with_present_window(rows: QuerySet[Budget, Any]) -> QuerySet[Budget, Any]:
    return rows.annotate(
        present=FilteredRelation(
            "windows",
            condition=Q(
                windows__generation=F("generation"),
                windows__starts_at__lte=Now(),
                windows__ends_at__gt=Now(),
            ),
        ),
        now=Now(),
        **{name: F(f"present__{name}") for name in _OF_WINDOW},
    )


def budgets() -> QuerySet[Budget, dict[str, Any]]:
    live = with_present_window(Budget.objects.filter(deleted_at__isnull=True))
    rows: QuerySet[Budget, dict[str, Any]] = live.values(
        *_BUDGET_COLUMNS, "trigger__name", "now", *_OF_WINDOW
    )
    return rows


def with_sums(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the budget's columns, and of its present window `window`, `spent`, `reserved`, `notional`, `runs` and
    `remaining`. `spent` and `reserved` count against the limit, and `remaining` is what they leave: never below 0, and
    None without a limit. `notional` is what subscriptions paid for.
    """
    sums = {name: row[name] or Decimal(0) for name in _SUMS}
    if row["starts_at"] is None:
        begin, end = period_around(row["now"], row["period"], row["timezone"])
    else:
        begin, end = row["starts_at"], row["ends_at"]
    spent, reserved = sums["spent_usd"], sums["reserved_usd"]
    if not row["count_notional"]:
        spent -= sums["notional_spent_usd"]
        reserved -= sums["notional_reserved_usd"]
    limit = row["limit_usd"]
    return {
        **row,
        "window": {"starts_at": begin, "ends_at": end},
        "spent": spent,
        "reserved": reserved,
        "notional": sums["notional_spent_usd"],
        "runs": row["runs"] or 0,
        "remaining": None if limit is None else max(Decimal(0), limit - spent - reserved),
    }
