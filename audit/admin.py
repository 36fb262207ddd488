"""The admin pages of the audit log."""

from datetime import timedelta
from typing import Any, get_args
from uuid import UUID

from django.apps import apps
from django.contrib.admin import register
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from audit.models import AuditEntry
from audit.serializers import with_actors
from pipedai.admin.base import BoundedList, StaffModelAdmin, one_of, related
from pipedai.admin.columns import link_to
from pipedai.admin.site import model_named, site
from pipedai.events import ACTIONS, ActorType
from pipedai.ids import moment_of
from workspaces.models import Environment
from workspaces.serializers import LABELS

# How far an entry's `created_at` may be from the time in its id. The database's clock writes the first, the clock of a
# web or scheduler process the second.
_CLOCKS_APART = timedelta(hours=1)


def _with_names(entries: list[Any]) -> list[Any]:
    """Adds `actor_label` and `environment_name`, with one query for each kind of actor and one for the environments."""
    places = Environment.objects.filter(id__in={entry.environment_id for entry in entries} - {None})
    names = dict(places.values_list("id", "name"))
    for entry, shown in zip(entries, with_actors(entries), strict=True):
        entry.actor_label = shown["actor"]["label"]
        entry.environment_name = names.get(entry.environment_id)
    return entries


class AuditList(BoundedList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        _with_names(self.result_list)


@register(AuditEntry, site=site)
class AuditEntryAdmin(StaffModelAdmin):
    list_display = ("created_at", "action", "who", "what", "environment", "metadata")
    list_filter = (
        one_of("actor_type", get_args(ActorType)), one_of("action", sorted(ACTIONS)),
        related("environment", Environment), related("target"), related("actor"),
    )  # fmt: skip
    reads = ("actor_type", "actor_id", "target_type", "target_id", "environment_id")
    newest_by = "created_at"
    indexes = {
        ("environment",): "created_at",
        ("environment", "action"): "created_at",
        ("environment", "target"): "created_at",
    }

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return AuditList

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        entry = self.find_exactly(self.get_queryset(request), object_id)
        found = entry.first() if entry is not None else None
        return _with_names([found])[0] if found else None

    def find_by_ids(
        self, rows: QuerySet[AuditEntry], first: UUID, last: UUID
    ) -> QuerySet[AuditEntry]:
        """An id begins with the time when it was made, so PostgreSQL searches only the partitions around it."""
        try:
            span = (moment_of(first) - _CLOCKS_APART, moment_of(last) + _CLOCKS_APART)
        except (ValueError, OverflowError):
            return rows.none()
        return rows.filter(id__range=(first, last), created_at__range=span)

    def who(self, entry: Any) -> Any:
        if entry.actor_type not in LABELS or entry.actor_id is None:
            return entry.actor_type
        model = apps.get_model(LABELS[entry.actor_type][0])
        return format_html(
            "{} {}", entry.actor_type, link_to(model, entry.actor_id, entry.actor_label)
        )

    def what(self, entry: AuditEntry) -> Any:
        model = model_named(entry.target_type)
        if model is None or entry.target_id is None:
            return entry.target_type
        return format_html("{} {}", entry.target_type, link_to(model, entry.target_id))

    def environment(self, entry: Any) -> Any:
        return link_to(Environment, entry.environment_id, entry.environment_name)
