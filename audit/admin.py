"""The admin pages of the audit log, and the panel on every row's page with the audit entries about the row."""

from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

from django.apps import apps
from django.contrib.admin import register
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from audit.models import AuditEntry
from audit.serializers import with_actors
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.change_list import KeysetChangeList, Scope
from pipedai.admin.fields import column, fields_of, itself, of_row, reading
from pipedai.admin.filters import DatesFilter, one_of, related
from pipedai.admin.panels import Drawn, add_to_page_of, table_of
from pipedai.admin.site import model_named, site
from pipedai.admin.values import changes, ident, link_to, list_of
from pipedai.events import ACTIONS, ActorType
from pipedai.ids import moment_of
from workspaces.actors import LABELS
from workspaces.models import Environment

_SHOWN = 50
# How far an entry's `created_at` may be from the time in its id. The database's clock writes the first, the clock of a
# web or scheduler process the second.
_CLOCKS_APART = timedelta(hours=1)


def _of_id(rows: QuerySet[AuditEntry], row_id: UUID) -> QuerySet[AuditEntry]:
    """The id contains the time when it was made, so PostgreSQL searches only the partitions around that time."""
    about = moment_of(row_id)
    if about is None:
        return rows.none()
    return rows.filter(
        id=row_id, created_at__gte=about - _CLOCKS_APART, created_at__lte=about + _CLOCKS_APART
    )


def _who(entry: Any) -> Any:
    if entry.actor_type not in LABELS or entry.actor_id is None:
        return entry.actor_type
    model = apps.get_model(LABELS[entry.actor_type][0])
    return format_html("{} {}", entry.actor_type, link_to(model, entry.actor_id, entry.actor_label))


def _what(entry: AuditEntry) -> Any:
    model = model_named(entry.target_type)
    if model is None or entry.target_id is None:
        return entry.target_type
    return format_html("{} {}", entry.target_type, link_to(model, entry.target_id))


def _where(entry: Any) -> Any:
    return link_to(Environment, entry.environment_id, entry.environment_name)


class AuditChangeList(KeysetChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """It takes one query for each kind of actor and one for the environments."""
        super().get_results(request)
        named(self.result_list)


@register(AuditEntry, site=site)
class AuditEntryAdmin(StaffModelAdmin):
    icon = "receipt_long"
    when_empty = "Nothing has been done yet that the audit log keeps."
    columns = ("When", "action", "Who", "What", "Environment", "Changes")
    facts = (
        ("When", "created_at"), "action", ("Who", of_row(_who, "actor_type", "actor_id")),
        ("What", of_row(_what, "target_type", "target_id")), ("Environment", of_row(_where, "environment_id")),
        ("Address", "ip"), ("Request", column("request_id", ident)), "id", ("Changes", column("metadata", changes)),
    )  # fmt: skip
    list_filter = (
        DatesFilter, one_of("actor_type", get_args(ActorType)), one_of("action", sorted(ACTIONS)),
        related("environment", Environment), related("target"), related("actor"),
    )  # fmt: skip
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
        entry = _of_id(AuditEntry.objects.all(), row_id).first()
        return named([entry])[0] if entry else None

    def find_by_id(self, rows: QuerySet[AuditEntry], row_id: UUID) -> QuerySet[AuditEntry]:
        """Without the range of time in the id, PostgreSQL would search the partitions of all months."""
        return _of_id(rows, row_id)


def named(entries: list[Any]) -> list[Any]:
    """Adds `actor_label` and `environment_name`: one query for each kind of actor, one for the environments."""
    places = Environment.objects.filter(id__in={entry.environment_id for entry in entries} - {None})
    names = dict(places.values_list("id", "name"))
    for entry, told in zip(entries, with_actors(entries), strict=True):
        entry.actor_label = told["actor"]["label"]
        entry.environment_name = names.get(entry.environment_id)
    return entries


def audit_panel(row: Model, _: HttpRequest) -> list[Drawn]:
    """Returns the panel with the audit entries about a row: those of its environment, or those without one."""
    environment_id = (
        row.pk if isinstance(row, Environment) else getattr(row, "environment_id", None)
    )
    filters = {"target": row.pk} | ({"environment": environment_id} if environment_id else {})
    columns = ("When", ("Action", itself("action")), "Who", "Changes")
    admin: Any = site.get_model_admin(AuditEntry)
    fields = fields_of(AuditEntry, columns, admin.named_facts)
    told = AuditEntry.objects.filter(target_id=row.pk, environment_id=environment_id)
    newest = told.order_by("-created_at", "-id")
    entries = reading(newest, fields.values(), "environment_id")[:_SHOWN]
    nothing, more = "It tells nothing of this.", list_of(AuditEntry, **filters)
    return [table_of("Audit log", fields, named(list(entries)), nothing=nothing, more=more)]


add_to_page_of(Model, audit_panel)
