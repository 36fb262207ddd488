"""The admin pages of budgets, and the panel of budgets on the page of an environment."""

from decimal import Decimal
from typing import Any

from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.charts import share_bar
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel, Table, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment, money, number, state, yes
from triggers.budgets.queries import budgets, with_present_window, with_sums
from triggers.models import Budget, BudgetWindow, Trigger
from workspaces.models import Environment

_SHOWN = 10


@register(Budget, site=site)
class BudgetAdmin(StaffModelAdmin):
    """Shows what budgets allow, and what their present windows have used."""

    icon = "savings"
    when_empty = "No environment has a budget yet."
    list_display = ("name", "shown_state", "in_environment", "covers", "limit", "used", "created")
    list_filter = ("period", "when_reached", related("environment", Environment))
    list_reads = (
        "id", "name", "period", "timezone", "limit_usd", "limit_runs", "when_reached", "count_notional", "created_at",
        "deleted_at", "trigger__name", "environment__name",
    )  # fmt: skip
    list_select_related = ("environment", "trigger")
    scopes = (Scope(("environment",), ("created_at", "id")),)
    story_joins = ("environment", "trigger")
    never_read = ("trigger__mcp_headers", "trigger__webhook_secret")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Returns the list's rows, each with what its present window has used."""
        return with_present_window(super().get_queryset(request))

    def story_rows(self) -> QuerySet[Any]:
        """Returns the query for one budget, with what its present window has used."""
        return with_present_window(super().story_rows())

    @display(description="State")
    def shown_state(self, budget: Budget) -> Any:
        return state("deleted" if budget.deleted_at else budget.when_reached)

    @display(description="Environment")
    def in_environment(self, budget: Budget) -> Any:
        return link_to(Environment, budget.environment_id, budget.environment.name)

    @display(description="Covers")
    def covers(self, budget: Budget) -> Any:
        if budget.trigger is None:
            return "all triggers"
        return link_to(Trigger, budget.trigger_id, budget.trigger.name)

    @display(description="Limit")
    def limit(self, budget: Budget) -> Any:
        return _limits(budget.limit_usd, budget.limit_runs, budget.period)

    @display(description="Used")
    def used(self, budget: Budget) -> Any:
        return _bar(with_sums(vars(budget)))

    @display(description="Made")
    def created(self, budget: Budget) -> Any:
        return moment(budget.created_at)

    def story(self, row: Any) -> list[Panel]:
        """Returns the panels of one budget: its facts and its newest windows."""
        sums = with_sums(vars(row))
        return [
            Facts(
                "Budget",
                [
                    ("State", self.shown_state(row)),
                    ("Environment", self.in_environment(row)),
                    ("Covers", self.covers(row)),
                    ("Limit", self.limit(row)),
                    ("Spent, reserved, left", _bar(sums)),
                    ("Spent", money(sums["spent"])),
                    ("Reserved", money(sums["reserved"])),
                    ("Left", money(sums["remaining"])),
                    ("Notional", money(sums["notional"])),
                    ("Runs", number(sums["runs"])),
                    ("Window begins", moment(sums["window"]["starts_at"])),
                    ("Window ends", moment(sums["window"]["ends_at"])),
                    ("Time zone", row.timezone),
                    ("Tells at", ", ".join(f"{pct} %" for pct in row.notice_at_pct) or "never"),
                    ("Reserves for a run", money(row.reserve_usd)),
                    ("Counts subscriptions", yes(row.count_notional)),
                    ("Made", self.created(row)),
                    ("Changed", moment(row.updated_at)),
                    ("Deleted", moment(row.deleted_at)),
                    ("Id", ident(row.id)),
                ],
            ),
            Table(
                "Newest windows",
                ("Begins", "Ends", "Spent", "Reserved", "Notional", "Runs"),
                [
                    (
                        moment(window.starts_at),
                        moment(window.ends_at),
                        money(window.spent_usd),
                        money(window.reserved_usd),
                        money(window.notional_spent_usd),
                        number(window.runs),
                    )
                    for window in BudgetWindow.objects.filter(budget=row).order_by(
                        "-generation", "-starts_at"
                    )[:_SHOWN]
                ],
                nothing="No run has been claimed since the budget was made.",
            ),
        ]


def _limits(usd: Decimal | None, runs: int | None, period: str) -> str:
    limits = [f"${usd.normalize():,f}"] if usd is not None else []
    if runs is not None:
        limits.append(f"{runs:,} runs")
    return f"{' and '.join(limits)} a {period}" if limits else "none"


def _bar(sums: dict[str, Any]) -> Any:
    """Returns a bar of what a window has spent and reserved and what is left. Without a limit it is a text."""
    spent, reserved, left = sums["spent"], sums["reserved"], sums["remaining"]
    if left is None:
        return f"${spent:,.2f} spent, ${reserved:,.2f} reserved"
    parts = (
        ("spent", f"${spent:,.2f} spent", float(spent)),
        ("reserved", f"${reserved:,.2f} reserved", float(reserved)),
        ("left", f"${left:,.2f} left", float(left)),
    )
    return share_bar(parts, whole=float(sums["limit_usd"]))


def budgets_panel(environment: Environment) -> Table:
    """Makes the panel with the newest budgets of an environment."""
    rows = budgets().filter(environment=environment).order_by("-created_at", "-id")[:_SHOWN]
    return Table(
        "Budgets",
        ("Budget", "When reached", "Limit", "Spent, reserved, left"),
        [
            (
                link_to(Budget, row["id"], row["name"]),
                row["when_reached"],
                _limits(row["limit_usd"], row["limit_runs"], row["period"]),
                _bar(with_sums(row)),
            )
            for row in rows
        ],
        nothing="No budget.",
        more=list_of(Budget, environment=environment.id),
    )


add_to_page_of(Environment, budgets_panel)
