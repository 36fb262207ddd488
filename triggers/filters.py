"""The filters of trigger and run lists (SPEC §5)."""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import QuerySet

from pipedai.api.errors import Invalid
from pipedai.api.filters import ApiFilterSet, EndFilter, IdFilter, TimeFilter, WordsFilter
from triggers.models import Trigger
from triggers.runs.queries import in_states
from triggers.states import Status


class TriggerFilters(ApiFilterSet):
    """The filter of a list of triggers: `?workerId`."""

    workerId = IdFilter(field_name="worker_id")


class StatusFilter(WordsFilter):
    """Keeps the runs that are in one of the given states, or all runs if none is given."""

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return in_states(qs, value) if value else qs


class RunFilters(ApiFilterSet):
    """The filters of a list of runs: `?status&from&to`, where `from` ≤ `queuedAt` < `to`."""

    status = StatusFilter(field_name="status", choices=Status.values)
    to = EndFilter(field_name="queued_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="queued_at", lookup_expr="gte")


class EnvironmentRunFilters(RunFilters):
    """The filters of the list of an environment's runs: those of RunFilters, and `?workerId&triggerId`."""

    workerId = IdFilter(field_name="worker_id")
    triggerId = IdFilter(field_name="trigger_id")


def check_tenant_ids(environment_id: UUID, filters: ApiFilterSet) -> None:
    """Raises Invalid if a filter names a worker or trigger that the environment does not have.

    The message is the same for an id of another environment and for an id that does not exist, so that nobody learns
    which ids other tenants have.
    """
    models: dict[str, Any] = {"workerId": apps.get_model("workers", "Worker"), "triggerId": Trigger}
    for name, model in models.items():
        if value := filters.values.get(name):
            rows: QuerySet[Any] = model._default_manager.all()
            if not rows.filter(environment_id=environment_id, id=value).exists():
                raise Invalid({name: ["No such id in this environment."]})
