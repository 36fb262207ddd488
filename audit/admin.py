"""Django admin's pages of the audit log. The module also adds a panel to the pages of other tables' rows: the audit
entries about that row.
"""

from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

from django.apps import apps
from django.contrib.admin import display, register
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from accounts.models import User
from audit.models import AuditEntry
from audit.queries import with_actors
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import KeysetChangeList, Scope
from pipedai.admin.filters import DatesFilter, one_of, related
from pipedai.admin.panels import Facts, Panel, Table, add_to_every_page
from pipedai.admin.site import site
from pipedai.admin.values import changes, ident, link_to, list_of, moment, text
from pipedai.events import ACTIONS, ActorType
from pipedai.ids import moment_of
from workers.models import Worker
from workspaces.models import ApiKey, Environment

_SHOWN = 50
# For each type of target that an audit entry can name, the Django model of such targets.
_TARGETS: dict[str, str] = {
    "user": "accounts.User",
    "workspace": "workspaces.Workspace",
    "environment": "workspaces.Environment",
    "data-key": "workspaces.DataKey",
    "api-key": "workspaces.ApiKey",
    "invitation": "workspaces.Invitation",
    "trigger": "triggers.Trigger",
    "run": "triggers.Run",
    "delivery": "triggers.Delivery",
    "worker": "workers.Worker",
    "pool": "workers.Pool",
    "budget": "triggers.Budget",
    "enrollment": "workers.Enrollment",
    "incident": "notices.Incident",
    "channel": "notices.Channel",
    "notice": "notices.Notice",
}
_ACTORS: dict[str, type[Model]] = {
    "user": User,
    "staff": User,
    "api_key": ApiKey,
    "worker": Worker,
}
# How far an entry's `created_at` may be from the time in its id. The database's clock writes the first, the clock of a
# web or scheduler process the second.
_CLOCKS_APART = timedelta(hours=1)


def _of_id(rows: QuerySet[AuditEntry], row_id: UUID) -> QuerySet[AuditEntry]:
    """Narrows the query to the entry with this id. The id contains the time at which it was made, so PostgreSQL
    searches only the partitions (months) around that time.
    """
    about = moment_of(row_id)
    if about is None:
        return rows.none()
    return rows.filter(
        id=row_id, created_at__gte=about - _CLOCKS_APART, created_at__lte=about + _CLOCKS_APART
    )


class AuditChangeList(KeysetChangeList):
    """A page of the list of audit entries, each with the names of its actor and environment."""

    def get_results(self, request: HttpRequest) -> None:
        """Reads the page's entries, then the names of actors and environments: one query for each kind of actor and one
        for the environments.
        """
        super().get_results(request)
        named(self.result_list)


@register(AuditEntry, site=site)
class AuditEntryAdmin(StaffModelAdmin):
    icon = "receipt_long"
    when_empty = "Nothing has been done yet that the audit log keeps."
    list_display = ("at", "action", "who", "what", "where", "shown_changes")
    list_filter = (
        DatesFilter,
        one_of("actor_type", get_args(ActorType)),
        one_of("action", sorted(ACTIONS)),
        related("environment", Environment),
        related("target"),
        related("actor"),
    )
    newest_first = ("created_at", "id")
    ordering = ("-created_at", "-id")
    scopes = (
        Scope(("environment",), ("created_at", "id")),
        Scope(("environment", "action"), ("created_at", "id")),
        Scope(("environment", "target"), ("created_at", "id")),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return AuditChangeList

    def find(self, row_id: UUID) -> Model | None:
        """Returns the entry with the names of its actor and environment."""
        entry = _of_id(AuditEntry.objects.all(), row_id).first()
        return named([entry])[0] if entry else None

    def find_by_id(self, rows: QuerySet[AuditEntry], row_id: UUID) -> QuerySet[AuditEntry]:
        """Narrows the list to the entry with this id and to the time that the id contains. Without a range of time,
        PostgreSQL would search the partitions of all months.
        """
        return _of_id(rows, row_id)

    @display(description="When")
    def at(self, entry: AuditEntry) -> Any:
        return moment(entry.created_at)

    @display(description="Who")
    def who(self, entry: Any) -> Any:
        model = _ACTORS.get(entry.actor_type)
        if model is None or entry.actor_id is None:
            return entry.actor_type
        shown = link_to(model, entry.actor_id, entry.actor_label)
        return format_html("{} {}", entry.actor_type, shown)

    @display(description="What")
    def what(self, entry: AuditEntry) -> Any:
        model = _TARGETS.get(entry.target_type)
        if model is None or entry.target_id is None:
            return entry.target_type
        shown = link_to(apps.get_model(model), entry.target_id)
        return format_html("{} {}", entry.target_type, shown)

    @display(description="Environment")
    def where(self, entry: Any) -> Any:
        return link_to(Environment, entry.environment_id, entry.environment_name)

    @display(description="Changes")
    def shown_changes(self, entry: AuditEntry) -> Any:
        return changes(entry.metadata)

    def story(self, row: Any) -> list[Panel]:
        return [
            Facts(
                "Entry",
                [
                    ("When", self.at(row)),
                    ("Action", row.action),
                    ("Who", self.who(row)),
                    ("What", self.what(row)),
                    ("Environment", self.where(row)),
                    ("Address", text(row.ip)),
                    ("Request", ident(row.request_id)),
                    ("Id", ident(row.id)),
                    ("Changes", self.shown_changes(row)),
                ],
            )
        ]


def named(entries: list[Any]) -> list[Any]:
    """Adds `actor_label` and `environment_name` to the entries. It takes one query for each kind of actor and one for
    the environments.
    """
    places = Environment.objects.filter(id__in={entry.environment_id for entry in entries} - {None})
    names = dict(places.values_list("id", "name"))
    for entry, told in zip(entries, with_actors(entries), strict=True):
        entry.actor_label = told["actor"]["label"]
        entry.environment_name = names.get(entry.environment_id)
    return entries


def audit_panel(row: Model) -> Table:
    """Makes the panel with the audit entries about a row. If the row is an environment or belongs to one, it reads only
    the entries of that environment; otherwise, as for a user or a workspace, only entries without an environment.
    """
    admin = site._registry[AuditEntry]
    assert isinstance(admin, AuditEntryAdmin)
    environment_id = (
        row.pk if isinstance(row, Environment) else getattr(row, "environment_id", None)
    )
    told = AuditEntry.objects.filter(environment_id=environment_id)
    if environment_id is None:
        told = AuditEntry.objects.filter(environment_id__isnull=True)
    entries = told.filter(target_id=row.pk).order_by("-created_at", "-id")[:_SHOWN]
    filters = {"target": row.pk} | ({"environment": environment_id} if environment_id else {})
    return Table(
        "Audit log",
        ("When", "Action", "Who", "Changes"),
        [
            (
                admin.at(each),
                link_to(AuditEntry, each.id, each.action),
                admin.who(each),
                changes(each.metadata),
            )
            for each in named(list(entries))
        ],
        nothing="It tells nothing of this.",
        more=list_of(AuditEntry, **filters),
    )


add_to_every_page(audit_panel)
