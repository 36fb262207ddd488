"""Reads runs for the API, as dicts that hold only what the API shows, and splits filtered lists of them into parts.

An index returns each part in order, and `pipedai.api.pagination` merges them, so that a page reads few rows more than
it shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Self
from uuid import UUID

from django.db.models import Case, F, Func, QuerySet, UUIDField, When
from django.db.models.functions import Left
from rest_framework.request import Request

from pipedai.api.filters import (
    ApiFilterSet,
    EndFilter,
    IdFilter,
    IncludeFilter,
    TimeFilter,
    TrueFalseFilter,
    WordFilter,
    WordsFilter,
)
from pipedai.api.pagination import usual
from pipedai.sql import fetch_all
from triggers.models import RUN_COLUMNS, Run
from triggers.states import FAILURES, TERMINAL, FaultClass, Source, Status

# The columns that `runs` adds to those of the table of runs.
_ADDED = ("trigger_name", "error_message", "will_retry")


def runs(of: QuerySet[Run, Any] | None = None) -> QuerySet[Run, dict[str, Any]]:
    rows: QuerySet[Run, dict[str, Any]] = (
        (Run.objects.all() if of is None else of)
        .annotate(
            trigger_name=F("trigger__name"),
            error_message=F("text__error_message"),
            will_retry=Case(When(ended_at__isnull=False, then=F("retried"))),
        )
        .values(*RUN_COLUMNS, *_ADDED)
    )
    return rows


def runs_in_order(ids: Sequence[UUID]) -> list[dict[str, Any]]:
    rows = {row["id"]: row for row in runs().filter(id__in=ids)}
    return [rows[run_id] for run_id in ids if run_id in rows]


def in_states(rows: QuerySet[Run, Any], states: Sequence[str]) -> QuerySet[Run, Any]:
    """Keeps the runs in these states. If they are all ended or all unfinished, it also adds the condition on `ended_at`
    that PostgreSQL needs to choose an index.
    """
    ended = {state in TERMINAL for state in states}
    if len(ended) == 1:
        rows = rows.filter(ended_at__isnull=not ended.pop())
    return rows.filter(status__in=states)


def failures(rows: QuerySet[Run, Any]) -> QuerySet[Run, Any]:
    """Keeps the runs that failed or timed out, by the conditions of the index `run_failed`."""
    return in_states(rows, FAILURES).filter(attempt__gte=1)


def _beside(comparison: str, order: str) -> Func:
    """Returns the id of the trigger's run that was queued right before or after a run of the query."""
    return Func(
        template=f"""(SELECT n.id FROM run n
        WHERE n.trigger_id = run.trigger_id AND n.environment_id = run.environment_id
            AND (n.queued_at, n.id) {comparison} (run.queued_at, run.id)
        ORDER BY n.queued_at {order}, n.id {order} LIMIT 1)
        """,
        output_field=UUIDField(),
    )


def run_in_full(run_id: UUID) -> dict[str, Any]:
    """Returns one run as a dict for RunDetailSerializer. Raises Run.DoesNotExist."""
    added = {
        "payload": F("text__payload"),
        "late_result": F("text__late_result"),
        "mcp_url": F("text__mcp_url"),
        "prompt": F("revision__prompt"),
        "output": F("result__output"),
        "previous_run_id": _beside("<", "DESC"),
        "next_run_id": _beside(">", "ASC"),
    }
    calls = ("tool_calls_total", "tool_calls_effects", "tool_calls_unknown")
    columns = (
        *RUN_COLUMNS,
        *_ADDED,
        *added,
        *calls,
        "denials_total",
        "denied_tools",
        "spell_times",
    )
    row: dict[str, Any] = runs().annotate(**added).values(*columns).get(id=run_id)
    return row


def tool_calls_of(run_id: UUID) -> dict[str, Any]:
    """Returns the listed calls and the number of all. Raises Run.DoesNotExist."""
    row = Run.objects.values("tool_calls_total", "result__tool_calls").get(id=run_id)
    return {"items": row["result__tool_calls"] or [], "total": row["tool_calls_total"]}


Rows = QuerySet[Run, Any]

# The fault classes that a run can have in each state in which it has ended. A CHECK constraint of the table says the
# same.
_FAULTS = {
    Status.SUCCEEDED: (FaultClass.NONE,),
    Status.CANCELED: (FaultClass.NONE,),
    Status.FAILED: (FaultClass.INFRA, FaultClass.CLIENT),
    Status.TIMED_OUT: (FaultClass.INFRA, FaultClass.CLIENT),
}


def _unfinished(rows: Rows, status: str, sent: Mapping[str, Any], *, of_some: bool) -> list[Rows]:
    """Returns the unfinished runs in one state. `of_some` says that all rows are of one trigger, worker or pool."""
    if sent["faultClass"]:
        return []
    if sent["source"]:
        rows = rows.filter(source__in=sent["source"])
    if not of_some:
        return [in_states(rows, [status])]
    # No index has the unfinished runs of a trigger, worker or pool in order. So they are found first and then sorted;
    # otherwise PostgreSQL would read all runs in order until it met an unfinished one. DISTINCT changes nothing, but
    # keeps PostgreSQL from joining both queries. LEFT keeps it from reading the queues of all tenants.
    found = rows.filter(ended_at__isnull=True).annotate(state=Left("status", 16))
    ids = found.filter(state=status).values("id").distinct()
    return [Run.objects.filter(id__in=ids)]


def _ended(rows: Rows, status: str, sent: Mapping[str, Any], *, of_pair: bool) -> Iterator[Rows]:
    """Yields the runs that ended in one state. `of_pair` says that all rows are of one trigger and one worker."""
    faults = [
        each for each in _FAULTS[Status(status)] if each in (sent["faultClass"] or FaultClass)
    ]
    sources = sent["source"]
    if sent["final"] and FaultClass.INFRA in faults:
        # The final runs that infrastructure ended have indexes of their own, because most runs of this fault class have
        # a retry. These indexes are small, so they have no column for the source.
        part = in_states(rows, [status]).filter(fault_class=FaultClass.INFRA, retried=False)
        yield part.filter(source__in=sources) if sources else part
        faults.remove(FaultClass.INFRA)
    # Without a condition on `ended_at`, the only index of ended runs that fits is that of a trigger and a worker.
    ended = rows if of_pair else rows.filter(ended_at__isnull=False)
    for fault, source in product(faults, sources or Source.values):
        part = ended.filter(status=usual(status), source=source, fault_class=fault)
        yield part.filter(retried=False) if sent["final"] else part


class StatusFilter(WordsFilter):
    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        return in_states(qs, value) if value else qs


class RunFilters(ApiFilterSet):
    """The filters `?status&faultClass&source&final&nothingNew&from&to&endedFrom&endedTo`. Beginnings are included, and
    ends are not. With `endedFrom` or `endedTo` the list is ordered by `endedAt`, otherwise by `queuedAt`.
    """

    status = StatusFilter(field_name="status", choices=Status.values)
    faultClass = WordsFilter(field_name="fault_class", choices=FaultClass.values)
    source = WordsFilter(field_name="source", choices=Source.values)
    final = WordFilter(choices=[("true", "true")], method="without_retried")
    nothingNew = TrueFalseFilter(field_name="nothing_new")
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
        """Returns querysets that share no row, each in an index's order, at most 39. Unfinished runs, of which there
        are few, are read by state; ended ones by source, state and fault class, as their indexes have it.
        """
        sent = self.values
        if self.time_field == "ended_at":
            rows: Any = self.qs
            states = [each for each in sent["status"] or TERMINAL if each in TERMINAL]
            if not self._of_one_trigger or not states:
                return [rows]
            return [in_states(rows, [state]) for state in states]
        rows = self.queryset
        chosen = ("status", "faultClass", "source", "final")
        for name, each in self.filters.items():
            if name not in chosen:
                rows = each.filter(rows, sent[name])
        of_pool = bool(sent.get("poolId"))
        ids = sum(map(bool, (self._of_one_trigger, sent.get("workerId"), of_pool)))
        # An index returns the ended runs of all states in order, unless they are of two of trigger, worker and pool.
        in_order = ids < 2 and not any(sent[name] for name in chosen)
        if in_order and not of_pool:
            return [rows]
        parts = [rows.filter(ended_at__isnull=False)] if in_order else []
        for status in sent["status"] or Status.values:
            if status not in TERMINAL:
                parts += _unfinished(rows, status, sent, of_some=ids > 0)
            elif not in_order:
                parts += _ended(rows, status, sent, of_pair=ids > 1 and not of_pool)
        return parts or [rows.none()]

    @property
    def _of_one_trigger(self) -> bool:
        return True


# The runs of each state are found by the indexes `run_unfinished_of_status` and `run_of_source`.
_IN_STATE = """SELECT s.status, r.number FROM unnest(%(statuses)s::text[]) s (status) CROSS JOIN {} CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM (
        SELECT FROM run WHERE environment_id = %(environment_id)s AND status = s.status AND {} LIMIT %(most)s) r) r"""
_COUNTS = f"""
SELECT status, least(sum(number), %(most)s)::int AS number FROM (
    {_IN_STATE.format("(SELECT) o", "ended_at IS NULL")} UNION ALL
    {_IN_STATE.format("unnest(%(sources)s::text[]) o (source)", "source = o.source AND ended_at IS NOT NULL")}) found
GROUP BY status
"""
# At most this many runs of a state are counted.
MOST_COUNTED = 100


def counts_of(environment_id: UUID) -> dict[str, int]:
    """Returns how many runs of the environment are in each state, up to MOST_COUNTED. It takes one query."""
    params = {"environment_id": environment_id, "most": MOST_COUNTED, "sources": Source.values}
    return {
        row["status"]: row["number"]
        for row in fetch_all(_COUNTS, {**params, "statuses": Status.values})
    }


class EnvironmentRunFilters(RunFilters):
    include = IncludeFilter(choices=["counts"])
    workerId = IdFilter(field_name="worker_id", of=["workers.Worker"])
    poolId = IdFilter(field_name="pool_id", of=["workers.Pool"])
    triggerId = IdFilter(field_name="trigger_id", of=["triggers.Trigger"])

    @classmethod
    def read_for(cls, environment_id: UUID, request: Request) -> Self:
        """Returns the filters of a request. Raises Invalid for bad parameters, and for an id of another environment."""
        rows = Run.objects.filter(environment_id=usual(environment_id))
        filters = cls.read(rows, request, environment_id=environment_id)
        if filters.values["workerId"] or filters.values["triggerId"]:
            # The worker or trigger is of this environment, and foreign keys ensure that its runs are, too. If the
            # statement named the environment as well, PostgreSQL might read all runs of the environment.
            filters.queryset = Run.objects.all()
        return filters

    @property
    def _of_one_trigger(self) -> bool:
        return bool(self.values["triggerId"])
