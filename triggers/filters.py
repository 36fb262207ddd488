"""The filters of the lists of triggers and ticks (SPEC §5), and the check of ids in filters."""

from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Q, QuerySet

from pipedai.api.errors import Invalid
from pipedai.api.filters import (
    ApiFilterSet,
    EndFilter,
    IdFilter,
    TextFilter,
    TimeFilter,
    TrueFalseFilter,
    WordsFilter,
)
from triggers.models import EventSource, Listener, Trigger
from triggers.states import Decision, Health, RecordEvents
from workspaces.models import Connection


class ListensToFilter(IdFilter):
    """Keeps the triggers that listen to the source or the trigger with this id."""

    def filter(self, qs: QuerySet[Any], value: UUID | None) -> QuerySet[Any]:
        if value is None:
            return qs
        listeners = Listener.objects.filter(Q(source_id=value) | Q(upstream_id=value))
        return qs.filter(id__in=listeners.values("trigger_id"))


class TriggerFilters(ApiFilterSet):
    """The filters of a list of triggers. `name` is a part of the name, in any case."""

    workerId = IdFilter(field_name="worker_id")
    poolId = IdFilter(field_name="pool_id")
    connectionId = IdFilter(field_name="connection_id")
    listensTo = ListensToFilter()
    enabled = TrueFalseFilter(field_name="enabled")
    recordEvents = WordsFilter(field_name="record_events", choices=RecordEvents.values)
    health = WordsFilter(field_name="health", choices=Health.values)
    name = TextFilter(field_name="name", lookup_expr="icontains", max_length=200)


class TickFilters(ApiFilterSet):
    decision = WordsFilter(field_name="decision", choices=Decision.values)
    to = EndFilter(field_name="tick_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="tick_at", lookup_expr="gte")


def check_tenant_ids(environment_id: UUID, filters: ApiFilterSet) -> None:
    """Raises Invalid if a filter names a row that the environment does not have. The message is the same whether the
    row exists elsewhere or not, so that nobody learns which ids exist.
    """
    models: dict[str, list[Any]] = {
        "workerId": [apps.get_model("workers", "Worker")],
        "poolId": [apps.get_model("workers", "Pool")],
        "connectionId": [Connection],
        "triggerId": [Trigger],
        "sourceId": [EventSource],
        "listensTo": [EventSource, Trigger],
    }
    for name, found in models.items():
        value = filters.values.get(name)
        if value and not any(
            model._default_manager.filter(environment_id=environment_id, id=value).exists()
            for model in found
        ):
            raise Invalid({name: ["No such id in this environment."]})
