"""The admin pages of scheduler processes."""

from typing import Any

from django.contrib.admin import display, register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, moment
from triggers.models import SchedulerHeartbeat


@register(SchedulerHeartbeat, site=site)
class SchedulerHeartbeatAdmin(StaffModelAdmin):
    """Shows the scheduler processes that are alive, and those that were killed within the last hour."""

    icon = "ecg_heart"
    when_empty = "No scheduler has ever been alive: start manage.py runscheduler."
    list_display = ("host", "pid", "started", "last_beat")

    @display(description="Started")
    def started(self, heartbeat: SchedulerHeartbeat) -> Any:
        return moment(heartbeat.started_at)

    @display(description="Last beat")
    def last_beat(self, heartbeat: SchedulerHeartbeat) -> Any:
        return moment(heartbeat.beat_at)

    def story(self, row: SchedulerHeartbeat) -> list[Panel]:
        return [
            Facts(
                "Scheduler",
                [
                    ("Host", row.host),
                    ("Process", row.pid),
                    ("Started", self.started(row)),
                    ("Last beat", self.last_beat(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]
