"""The admin pages of incidents, and the panels of incidents on the pages of environments, triggers, workers,
pools and budgets.
"""

from typing import Any

from django.contrib.admin import display, register

from accounts.models import User
from notices.channels import admin as _channels  # noqa: F401 - importing it registers its pages
from notices.models import Incident
from notices.states import SubjectType
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import Scope
from pipedai.admin.filters import DatesFilter, related
from pipedai.admin.panels import Facts, Panel, Table, add_to_page_of
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, list_of, moment, number, state, text
from triggers.models import Budget, Run, Trigger
from workers.models import Pool, Worker
from workspaces.models import Environment

_SHOWN = 10
_SUBJECTS: dict[str, Any] = {
    SubjectType.TRIGGER: Trigger,
    SubjectType.WORKER: Worker,
    SubjectType.POOL: Pool,
    SubjectType.BUDGET: Budget,
}


@register(Incident, site=site)
class IncidentAdmin(StaffModelAdmin):
    """Shows what is or was wrong with triggers, workers, pools, webhooks and budgets."""

    icon = "warning"
    is_shortcut = True
    when_empty = "Nothing has gone wrong yet."
    list_display = (
        "opened",
        "what",
        "shown_state",
        "subject",
        "in_environment",
        "message",
        "closed",
    )
    list_filter = ("kind", DatesFilter, related("environment", Environment))
    list_reads = (
        "id", "kind", "subject_type", "subject_id", "subject_name", "message", "opened_at", "closed_at",
        "acknowledged_at", "environment__name",
    )  # fmt: skip
    list_select_related = ("environment",)
    scopes = (Scope(("environment",), ("opened_at", "id")),)
    story_joins = ("environment",)

    @display(description="Opened")
    def opened(self, incident: Incident) -> Any:
        return moment(incident.opened_at)

    @display(description="Closed")
    def closed(self, incident: Incident) -> Any:
        return moment(incident.closed_at)

    @display(description="Kind")
    def what(self, incident: Incident) -> Any:
        return state(incident.kind)

    @display(description="State")
    def shown_state(self, incident: Incident) -> Any:
        """Shows whether the incident is open, open but acknowledged, or closed."""
        if incident.closed_at:
            return state("closed")
        return state("acknowledged" if incident.acknowledged_at else "open")

    @display(description="About")
    def subject(self, incident: Incident) -> Any:
        """Shows the name of the incident's subject, as a link if the admin has a page of the subject."""
        model = _SUBJECTS.get(incident.subject_type)
        if model is None:
            return text(incident.subject_name)
        return link_to(model, incident.subject_id, incident.subject_name)

    @display(description="Environment")
    def in_environment(self, incident: Incident) -> Any:
        return link_to(Environment, incident.environment_id, incident.environment.name)

    def story(self, row: Incident) -> list[Panel]:
        """Returns the panel with all facts about an incident."""
        return [
            Facts(
                "Incident",
                [
                    ("State", self.shown_state(row)),
                    ("Kind", self.what(row)),
                    ("About", self.subject(row)),
                    ("Environment", self.in_environment(row)),
                    ("Cause", row.message),
                    ("Run", link_to(Run, row.run_id)),
                    ("Opened", self.opened(row)),
                    ("Closed", self.closed(row)),
                    ("Acknowledged", moment(row.acknowledged_at)),
                    ("Acknowledged by", link_to(User, row.acknowledged_by)),
                    ("Notices", number(row.notice_count)),
                    ("Reminders", number(row.reminder_count)),
                    ("Next reminder", moment(row.remind_at)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


def open_incidents_panel(environment: Environment) -> Table:
    """Makes the panel with the newest open incidents of an environment."""
    rows = Incident.objects.filter(environment=environment, closed_at__isnull=True)
    return _table("Open incidents", rows, more=list_of(Incident, environment=environment.id))


def incidents_panel(row: Trigger | Worker | Pool | Budget) -> Table:
    """Makes the panel with the newest incidents of a trigger, worker, pool or budget, open and closed."""
    return _table("Incidents", Incident.objects.filter(subject_id=row.id))


def _table(title: str, rows: Any, *, more: str = "") -> Table:
    admin = site._registry[Incident]
    assert isinstance(admin, IncidentAdmin)
    return Table(
        title,
        ("Opened", "Kind", "State", "About", "Cause", "Closed"),
        [
            (
                link_to(Incident, each.id, admin.opened(each)),
                admin.what(each),
                admin.shown_state(each),
                admin.subject(each),
                each.message,
                admin.closed(each),
            )
            for each in rows.order_by("-opened_at", "-id")[:_SHOWN]
        ],
        more=more,
    )


add_to_page_of(Environment, open_incidents_panel)
add_to_page_of(Trigger, incidents_panel)
add_to_page_of(Worker, incidents_panel)
add_to_page_of(Pool, incidents_panel)
add_to_page_of(Budget, incidents_panel)
