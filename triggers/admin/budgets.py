"""The admin pages of budgets, and the panel of budgets on the page of an environment."""

from typing import Any

from django.contrib.admin import register
from django.db.models import Q

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.fields import Shown, column, itself, of_row
from pipedai.admin.panels import Related, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.start_page import share_bar
from pipedai.admin.values import link_to, moment, money, number, state
from triggers.budgets.queries import with_present_window, with_sums
from triggers.models import Budget, BudgetWindow, Trigger
from workspaces.models import Environment


def _state(budget: Budget) -> Any:
    return state("deleted" if budget.deleted_at else budget.when_reached)


def _covers(budget: Budget) -> Any:
    if budget.trigger is None:
        return "all triggers"
    return link_to(Trigger, budget.trigger_id, budget.trigger.name)


def _limit(budget: Budget) -> str:
    usd, runs = budget.limit_usd, budget.limit_runs
    limits = [f"${usd.normalize():,f}"] if usd is not None else []
    if runs is not None:
        limits.append(f"{runs:,} runs")
    return f"{' and '.join(limits)} a {budget.period}" if limits else "none"


def _used(budget: Budget) -> Any:
    sums = with_sums(vars(budget))
    spent, reserved, left = sums["spent"], sums["reserved"], sums["remaining"]
    if left is None:
        return f"${spent:,.2f} spent, ${reserved:,.2f} reserved"
    parts = (
        ("spent", f"${spent:,.2f} spent", float(spent)),
        ("reserved", f"${reserved:,.2f} reserved", float(reserved)),
        ("left", f"${left:,.2f} left", float(left)),
    )
    return share_bar(parts, whole=float(sums["limit_usd"]))


def _sum(name: str, show: Any) -> Any:
    return of_row(lambda budget: show(with_sums(vars(budget))[name]))


_READ = ("limit_usd", "period", "timezone", "count_notional")
_USED = Shown(_used, _READ, with_present_window)


@register(Budget, site=site)
class BudgetAdmin(StaffModelAdmin):
    icon = "savings"
    group = "Money"
    when_empty = "No environment has a budget yet."
    named_by = "name"
    columns = ("name", "State", "environment", "Covers", "Limit", ("Used", _USED), "Made")
    list_filter = ("period", "when_reached", "environment")
    scopes = (Scope(("environment",), ("created_at", "id")),)
    left_out = ("generation",)  # It only separates a changed budget's windows from earlier ones.
    facts = (
        ("State", of_row(_state, "deleted_at", "when_reached")), "name", "environment",
        ("Covers", of_row(_covers, "trigger__name")),
        ("Limit", of_row(_limit, "limit_usd", "limit_runs", "period")), ("Spent, reserved, left", _USED),
        ("Spent", _sum("spent", money)), ("Reserved", _sum("reserved", money)), ("Left", _sum("remaining", money)),
        ("Notional", _sum("notional", money)), ("Runs", _sum("runs", number)),
        ("Window begins", _sum("window", lambda window: moment(window["starts_at"]))),
        ("Window ends", _sum("window", lambda window: moment(window["ends_at"]))), ("Time zone", "timezone"),
        ("Tells at", column("notice_at_pct", lambda all_: ", ".join(f"{pct} %" for pct in all_) or "never")),
        ("Reserves for a run", "reserve_usd"), ("Counts subscriptions", "count_notional"), ("Made", "created_at"),
        ("Changed", "updated_at"), "deleted_at", "id", ("Key in files", "key"), ("Managed by the files", "managed_by"),
    )  # fmt: skip
    panels = (
        Related(
            "Newest windows", BudgetWindow,
            (
                ("Begins", "starts_at"), ("Ends", "ends_at"), ("Spent", "spent_usd"), ("Reserved", "reserved_usd"),
                ("Notional", "notional_spent_usd"), "runs",
            ),
            by="budget", order=("-generation", "-starts_at"), shown=10,
            nothing="No run has been claimed since the budget was made.",
        ),
    )  # fmt: skip


_OF_ENVIRONMENT = Related(
    "Budgets", Budget, (("Budget", itself("name")), "when_reached", "Limit", "Spent, reserved, left"), by="environment",
    where=Q(deleted_at__isnull=True), shown=10, nothing="No budget.",
)  # fmt: skip

add_to_page_of(Environment, _OF_ENVIRONMENT)
