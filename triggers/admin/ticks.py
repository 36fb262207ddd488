"""The admin pages of ticks."""

from datetime import tzinfo
from typing import Any

from django.contrib.admin import display, register
from django.db.models import QuerySet

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import DatesFilter, related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import (
    ident,
    in_both_zones,
    link_to,
    moment,
    number,
    state,
    zone_of,
)
from triggers.admin.errors import beginning_of_error
from triggers.admin.tick_table import what_became_of
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
        "how_many",
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
    story_joins = ("trigger", "environment", "run")
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

    @display(description="Due times")
    def how_many(self, tick: Tick) -> int:
        """Shows for how many due times the row stands."""
        return max(1, tick.missed_count)

    @display(description="Run")
    def made_run(self, tick: Tick) -> Any:
        return link_to(Run, tick.run_id)

    def story_rows(self) -> QuerySet[Any]:
        """Returns the query for one tick, with the beginning of its run's error message."""
        begins = beginning_of_error("run__")
        rows: QuerySet[Any] = super().story_rows().annotate(error_begins=begins)
        return rows

    def story(self, row: Tick) -> list[Panel]:
        zone = zone_of(row.trigger.timezone)
        return [
            Facts(
                "Tick",
                [
                    ("Decision", self.decided(row)),
                    ("What became of it", what_became_of(row)),
                    ("Trigger", self.of_trigger(row)),
                    ("Environment", self.in_environment(row)),
                    ("Due", in_both_zones(row.tick_at, zone)),
                    *_of_several(row, zone),
                    ("Decided", in_both_zones(row.decided_at, zone)),
                    ("Run", self.made_run(row)),
                    ("Blocked by the run", link_to(Run, row.blocked_by_id)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


def _of_several(tick: Tick, zone: tzinfo) -> list[tuple[str, Any]]:
    """Returns the facts that only a row for several due times has."""
    if tick.missed_count <= 1:
        return []
    return [
        ("The last of these was due", in_both_zones(tick.last_tick_at, zone)),
        ("Due times without a run", number(tick.missed_count)),
    ]
