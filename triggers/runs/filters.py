"""The filters of the lists of runs, and the parameters of the overview and the statistics (SPEC §5, §12)."""

from typing import Any, Self
from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request

from pipedai.api.filters import (
    ApiFilterSet,
    EndFilter,
    IdFilter,
    TimeFilter,
    TimezoneFilter,
    WordFilter,
    WordsFilter,
)
from pipedai.api.pagination import usual
from triggers.filters import check_tenant_ids
from triggers.models import Budget, Run
from triggers.runs.queries import Wanted, in_states, parts_of
from triggers.runs.stats import GROUPINGS
from triggers.states import TERMINAL, FaultClass, Source, Status


class StatusFilter(WordsFilter):
    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return in_states(qs, value) if value else qs


class RunFilters(ApiFilterSet):
    """The filters `?status&faultClass&source&final&from&to&endedFrom&endedTo`. Beginnings are included, and ends are
    not. With `endedFrom` or `endedTo` the list is ordered by `endedAt`, otherwise by `queuedAt`.
    """

    status = StatusFilter(field_name="status", choices=Status.values)
    faultClass = WordsFilter(field_name="fault_class", choices=FaultClass.values)
    source = WordsFilter(field_name="source", choices=Source.values)
    final = WordFilter(choices=[("true", "true")], method="without_retried")
    to = EndFilter(field_name="queued_at")
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter(field_name="queued_at", lookup_expr="gte")
    endedFrom = TimeFilter(field_name="ended_at", lookup_expr="gte")
    endedTo = EndFilter(field_name="ended_at")

    def without_retried(self, rows: QuerySet[Any], _name: str, _value: str) -> QuerySet[Any]:
        """Keeps the runs that no retry follows."""
        return rows.filter(retried=False)

    @property
    def time_field(self) -> str:
        sent = self.values
        return "ended_at" if sent["endedFrom"] or sent["endedTo"] else "queued_at"

    @property
    def parts(self) -> list[QuerySet[Any]]:
        """Returns querysets that share no row, each in an index's order; see `triggers.runs.queries`."""
        sent = self.values
        if self.time_field == "ended_at":
            rows: Any = self.qs
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


class OverviewFilters(ApiFilterSet):
    timezone = TimezoneFilter()


class StatsFilters(ApiFilterSet):
    groupBy = WordFilter(choices=[(each, each) for each in GROUPINGS], required=True)
    to = TimeFilter()
    period = WordFilter(choices=Budget.Period.choices)
    timezone = TimezoneFilter()
    # `from` is a keyword of Python, so it cannot be assigned directly.
    vars()["from"] = TimeFilter()
