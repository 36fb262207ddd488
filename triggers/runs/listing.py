"""Splits a filtered list of runs, ordered by `queued_at`, into parts that an index returns in order.

`pipedai.api.pagination` merges them, so that a page reads few rows more than it shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Left

from pipedai.api.pagination import usual
from triggers.models import Run
from triggers.runs.queries import in_states
from triggers.states import TERMINAL, FaultClass, Source, Status

Rows = QuerySet[Run, Any]

# The fault classes that a run can have in each state in which it has ended. A CHECK constraint of the table says the
# same.
_FAULTS = {
    Status.SUCCEEDED: (FaultClass.NONE,),
    Status.CANCELED: (FaultClass.NONE,),
    Status.FAILED: (FaultClass.INFRA, FaultClass.CLIENT),
    Status.TIMED_OUT: (FaultClass.INFRA, FaultClass.CLIENT),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of a request; an empty list keeps all runs. `of_some`: all are of one trigger, worker or pool, of
    whose unfinished runs no index has the order. `of_pair`: of two of these, which have an order only together with
    state, source and fault class. `of_pool`: of one pool, whose ended runs have an order.
    """

    statuses: Sequence[str] = ()
    faults: Sequence[str] = ()
    sources: Sequence[str] = ()
    final: bool = False
    of_some: bool = False
    of_pair: bool = False
    of_pool: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether no filter leaves out a run, and an index returns the ended runs of all states in order."""
        return not (self.statuses or self.faults or self.sources or self.final or self.of_pair)


def parts_of(rows: Rows, wanted: Wanted) -> list[Rows]:
    """Returns querysets that share no row. Unfinished runs, of which there are few, are read by state; ended ones by
    source, state and fault class, as their indexes have it. There are at most 39 parts.
    """
    if wanted.is_everything:
        if not wanted.of_pool:
            return [rows]
        unfinished = (
            part
            for status in Status.values
            if status not in TERMINAL
            for part in _unfinished(rows, status, wanted)
        )
        return [rows.filter(ended_at__isnull=False), *unfinished]
    parts = [
        part
        for status in wanted.statuses or Status.values
        for part in (
            _ended(rows, status, wanted)
            if status in TERMINAL
            else _unfinished(rows, status, wanted)
        )
    ]
    return parts or [rows.none()]


def _unfinished(rows: Rows, status: str, wanted: Wanted) -> Iterator[Rows]:
    if wanted.faults:
        return
    if wanted.sources:
        rows = rows.filter(source__in=wanted.sources)
    if not wanted.of_some:
        yield in_states(rows, [status])
        return
    # No index has the unfinished runs of a trigger, worker or pool in order. So they are found first and sorted:
    # PostgreSQL would otherwise read all runs in order, and wait for an unfinished one. DISTINCT, of ids that are
    # distinct anyway, keeps it from making one query of both, and LEFT from reading the queues of all tenants.
    found = rows.filter(ended_at__isnull=True).annotate(state=Left("status", 16))
    ids = found.filter(state=status).values("id").distinct()
    yield Run.objects.filter(id__in=ids)


def _ended(rows: Rows, status: str, wanted: Wanted) -> Iterator[Rows]:
    faults = [
        each for each in _FAULTS[Status(status)] if not wanted.faults or each in wanted.faults
    ]
    if wanted.final and FaultClass.INFRA in faults:
        # The final runs that infrastructure ended have indexes of their own, because most runs of this fault class have
        # a retry. These indexes have few runs, so they do without a column for the source.
        part = in_states(rows, [status]).filter(fault_class=FaultClass.INFRA, retried=False)
        yield part.filter(source__in=wanted.sources) if wanted.sources else part
        faults.remove(FaultClass.INFRA)
    # Without a condition on `ended_at`, the only index of ended runs that fits is that of a trigger and a worker.
    is_of_pair = wanted.of_pair and not wanted.of_pool
    ended = rows if is_of_pair else rows.filter(ended_at__isnull=False)
    for fault, source in product(faults, wanted.sources or Source.values):
        part = ended.filter(status=usual(status), source=source, fault_class=fault)
        yield part.filter(retried=False) if wanted.final else part
