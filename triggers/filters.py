"""The filters of trigger and run lists (SPEC §5)."""

from typing import Any, Self
from uuid import UUID

from django.apps import apps
from django.db.models import QuerySet
from rest_framework.request import Request

from pipedai.api.errors import Invalid
from pipedai.api.filters import (
    ApiFilterSet,
    EndFilter,
    IdFilter,
    TextFilter,
    TimeFilter,
    TrueFalseFilter,
    WordFilter,
    WordsFilter,
)
from pipedai.api.pagination import usual
from triggers.models import Run, Trigger
from triggers.runs.listing import Wanted, final, parts_of, unretried_faults
from triggers.runs.queries import in_states
from triggers.states import TERMINAL, Decision, FaultClass, Health, RecordEvents, Source, Status


class TriggerFilters(ApiFilterSet):
    """The filters of a list of triggers: `?workerId&poolId&enabled&recordEvents&health&name`. `name` is a part of the
    name, in any case.
    """

    workerId = IdFilter(field_name="worker_id")
    poolId = IdFilter(field_name="pool_id")
    enabled = TrueFalseFilter(field_name="enabled")
    recordEvents = WordsFilter(field_name="record_events", choices=RecordEvents.values)
    health = WordsFilter(field_name="health", choices=Health.values)
    name = TextFilter(field_name="name", lookup_expr="icontains", max_length=200)


class TickFilters(ApiFilterSet):
    decision = WordsFilter(field_name="decision", choices=Decision.values)
    to = EndFilter(field_name="tick_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="tick_at", lookup_expr="gte")


class StatusFilter(WordsFilter):
    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return in_states(qs, value) if value else qs


class FinalFilter(WordFilter):
    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return final(qs) if value else qs


class RunFilters(ApiFilterSet):
    """The filters `?status&faultClass&source&final&from&to&endedFrom&endedTo`. Beginnings are included, and ends are
    not. With `endedFrom` or `endedTo` the list is ordered by `endedAt`, otherwise by `queuedAt`.
    """

    status = StatusFilter(field_name="status", choices=Status.values)
    faultClass = WordsFilter(field_name="fault_class", choices=FaultClass.values)
    source = WordsFilter(field_name="source", choices=Source.values)
    final = FinalFilter(choices=[("true", "true")])
    to = EndFilter(field_name="queued_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="queued_at", lookup_expr="gte")
    endedFrom = TimeFilter(field_name="ended_at", lookup_expr="gte")
    endedTo = EndFilter(field_name="ended_at")

    @property
    def time_field(self) -> str:
        sent = self.values
        return "ended_at" if sent["endedFrom"] or sent["endedTo"] else "queued_at"

    @property
    def parts(self) -> list[QuerySet[Any]]:
        """Returns querysets that share no row, each in an index's order; see `triggers.runs.listing`."""
        sent = self.values
        if self.time_field == "ended_at":
            rows: Any = self.qs
            if sent["final"] and sent["faultClass"] == [FaultClass.INFRA]:
                rows = unretried_faults(rows)
            states = [each for each in sent["status"] or TERMINAL if each in TERMINAL]
            if not self._of_one_trigger or not states:
                return [rows]
            return [in_states(rows, [state]) for state in states]
        rows = self.queryset
        for name, each in self.filters.items():
            if name not in ("status", "faultClass", "source", "final"):
                rows = each.filter(rows, sent[name])
        ids = sum(map(bool, (self._of_one_trigger, sent.get("workerId"), sent.get("poolId"))))
        wanted = Wanted(
            statuses=sent["status"],
            faults=sent["faultClass"],
            sources=sent["source"],
            final=bool(sent["final"]),
            of_some=ids > 0,
            of_pair=ids > 1,
            of_pool=bool(sent.get("poolId")),
        )
        return parts_of(rows, wanted)

    @property
    def _of_one_trigger(self) -> bool:
        return True


class EnvironmentRunFilters(RunFilters):
    workerId = IdFilter(field_name="worker_id")
    poolId = IdFilter(field_name="pool_id")
    triggerId = IdFilter(field_name="trigger_id")

    @classmethod
    def read_for(cls, environment_id: UUID, request: Request) -> Self:
        """Raises Invalid for bad parameters, also for an id that the environment does not have."""
        filters = cls.read(Run.objects.filter(environment_id=usual(environment_id)), request)
        check_tenant_ids(environment_id, filters)
        if filters.values["workerId"] or filters.values["triggerId"]:
            # The worker or trigger is of this environment, and so are all its runs, as foreign keys ensure. If the
            # statement named the environment as well, PostgreSQL might read all runs of the environment.
            filters.queryset = Run.objects.all()
        return filters

    @property
    def _of_one_trigger(self) -> bool:
        return bool(self.values["triggerId"])


def check_tenant_ids(environment_id: UUID, filters: ApiFilterSet) -> None:
    """Raises Invalid if a filter names a row that the environment does not have. The message is the same whether the
    row exists elsewhere or not, so that nobody learns which ids exist.
    """
    models: dict[str, Any] = {
        "workerId": apps.get_model("workers", "Worker"),
        "poolId": apps.get_model("workers", "Pool"),
        "triggerId": Trigger,
    }
    for name, model in models.items():
        if value := filters.values.get(name):
            rows: QuerySet[Any] = model._default_manager.all()
            if not rows.filter(environment_id=environment_id, id=value).exists():
                raise Invalid({name: ["No such id in this environment."]})
