"""The admin pages of ticks."""

from typing import Any

from django.contrib.admin import display, register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import related
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
    list_display = ("due", "decided", "of_trigger", "made_run", "missed_count")
    list_filter = ("decision", related("environment", Environment), related("trigger", Trigger))
    list_reads = ("id", "tick_at", "decision", "missed_count", "run_id", "trigger__name")
    list_select_related = ("trigger",)
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
                    ("Environment", link_to(Environment, row.environment_id, row.environment.name)),
                    ("Due", self.due(row)),
                    ("The last of these was due", moment(row.last_tick_at)),
                    ("Due times without a run", number(row.missed_count)),
                    ("Decided", moment(row.decided_at)),
                    ("Run", self.made_run(row)),
                    ("Blocked by the run", link_to(Run, row.blocked_by_id)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
