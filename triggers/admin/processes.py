"""The admin pages of the service's processes: schedulers and web processes."""

from typing import Any

from django.contrib.admin import display, register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, moment
from triggers.models import SchedulerHeartbeat, WebHeartbeat


class HeartbeatAdmin(StaffModelAdmin):
    """Shows the processes of one kind that are alive, and those that ended without saying so within the last hour."""

    icon = "ecg_heart"
    list_display = ("host", "pid", "started", "last_beat")

    @display(description="Started")
    def started(self, heartbeat: Any) -> Any:
        return moment(heartbeat.started_at)

    @display(description="Last beat")
    def last_beat(self, heartbeat: Any) -> Any:
        return moment(heartbeat.beat_at)

    def story(self, row: Any) -> list[Panel]:
        return [Facts("Process", self.facts(row))]

    def facts(self, row: Any) -> list[tuple[str, Any]]:
        """Returns what is known of the process: a name and a value each."""
        return [
            ("Host", row.host),
            ("Process", row.pid),
            ("Started", self.started(row)),
            ("Last beat", self.last_beat(row)),
            ("Id", ident(row.id)),
        ]


@register(SchedulerHeartbeat, site=site)
class SchedulerHeartbeatAdmin(HeartbeatAdmin):
    """Shows the scheduler processes."""

    when_empty = "No scheduler has ever been alive: start manage.py runscheduler."


@register(WebHeartbeat, site=site)
class WebHeartbeatAdmin(HeartbeatAdmin):
    """Shows the web processes, and since when workers could reach the service without a gap."""

    when_empty = "No web process has written a heartbeat within the last hour."

    def facts(self, row: Any) -> list[tuple[str, Any]]:
        """Returns what is known of the process, and since when the service was reachable."""
        return [*super().facts(row), ("Service reachable since", moment(row.reachable_since))]
