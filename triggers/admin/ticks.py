"""The admin pages of ticks."""

from typing import Any

from django.contrib.admin import display, register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import DatesFilter, related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, moment, number, state
from triggers.models import Run, Tick, Trigger
from workspaces.models import Environment


@register(Tick, site=site)
class TickAdmin(StaffModelAdmin):
    """Shows the due times of schedules and what the scheduler decided about each."""

    icon = "schedule"
    when_empty = "No schedule has come due yet."
    list_display = (
        "due",
        "decided",
        "in_environment",
        "of_trigger",
        "made_run",
        "missed_count",
        "when_decided",
    )
    list_filter = (
        "decision",
        DatesFilter,
        related("environment", Environment),
        related("trigger", Trigger),
    )
    list_reads = (
        "id", "tick_at", "decision", "missed_count", "decided_at", "run_id", "trigger__name", "environment__name",
    )  # fmt: skip
    list_select_related = ("trigger", "environment")
    scopes = (Scope(("trigger",), ("tick_at",)),)
    story_joins = ("trigger", "environment")
    never_read = ("trigger__mcp_headers", "trigger__webhook_secret")

    @display(description="Due")
    def due(self, tick: Tick) -> Any:
        return moment(tick.tick_at)

    @display(description="Decision")
    def decided(self, tick: Tick) -> Any:
        return state(tick.decision)

    @display(description="Trigger")
    def of_trigger(self, tick: Tick) -> Any:
        return link_to(Trigger, tick.trigger_id, tick.trigger.name)

    @display(description="Environment")
    def in_environment(self, tick: Tick) -> Any:
        return link_to(Environment, tick.environment_id, tick.environment.name)

    @display(description="Decided")
    def when_decided(self, tick: Tick) -> Any:
        return moment(tick.decided_at)

    @display(description="Run")
    def made_run(self, tick: Tick) -> Any:
        return link_to(Run, tick.run_id)

    def story(self, row: Tick) -> list[Panel]:
        return [
            Facts(
                "Tick",
                [
                    ("Decision", self.decided(row)),
                    ("Trigger", self.of_trigger(row)),
                    ("Environment", self.in_environment(row)),
                    ("Due", self.due(row)),
                    ("The last of these was due", moment(row.last_tick_at)),
                    ("Due times without a run", number(row.missed_count)),
                    ("Decided", self.when_decided(row)),
                    ("Run", self.made_run(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
