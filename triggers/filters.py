"""The filters of trigger and run lists (SPEC §5)."""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import QuerySet

from pipedai.api.errors import Invalid
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from triggers.models import Trigger
from triggers.queries import in_states
from triggers.states import Status


class TriggerFilters(ApiFilterSet):
    """`?workerId`"""

    workerId = IdFilter(field_name="worker_id")


class StatusFilter(WordsFilter):
    """Keeps runs in one of the given states."""

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        """All runs if no state was given."""
        return in_states(qs, value) if value else qs


class RunFilters(ApiFilterSet):
    """`?status&from&to`: `from` ≤ `queuedAt` < `to`."""

    status = StatusFilter(field_name="status", choices=Status.values)
    to = EndFilter(field_name="queued_at")
    vars()["from"] = TimeFilter(field_name="queued_at", lookup_expr="gte")  # a word of Python's


class EnvironmentRunFilters(RunFilters):
    """Those, and `?workerId&triggerId`."""

    workerId = IdFilter(field_name="worker_id")
    triggerId = IdFilter(field_name="trigger_id")


def check_tenant_ids(environment_id: UUID, filters: ApiFilterSet) -> None:
    """Raises Invalid if a filter names a worker or trigger that is not the environment's: a foreign
    one looks missing.
    """
    models: dict[str, Any] = {"workerId": apps.get_model("workers", "Worker"), "triggerId": Trigger}
    for name, model in models.items():
        if value := filters.values.get(name):
            rows: QuerySet[Any] = model._default_manager.all()
            if not rows.filter(environment_id=environment_id, id=value).exists():
                raise Invalid({name: ["No such id in this environment."]})
