"""The filters of the list of incidents (SPEC §14)."""

from typing import Any

from django.db.models import QuerySet

from notices.states import Kind
from pipedai.api.filters import ApiFilterSet, IdFilter, WordFilter, WordsFilter


class StatusFilter(WordFilter):
    """Keeps the open incidents, or the closed ones."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return qs.filter(closed_at__isnull=value == "open") if value else qs


class IncidentFilters(ApiFilterSet):
    """The filters of a list of incidents: `?status&kind&triggerId`."""

    status = StatusFilter(choices=[("open", "open"), ("closed", "closed")])
    kind = WordsFilter(field_name="kind", choices=Kind.values)
    triggerId = IdFilter(field_name="subject_id")
