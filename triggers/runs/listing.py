"""Splits a filtered list of runs, ordered by `queued_at`, into parts that an index each returns in order.

A page then reads only a few rows more than it shows, even if one run in a million fits the filters. `pipedai.keyset`
merges the parts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from django.db.models import CharField, Func, QuerySet

from triggers.models import Run
from triggers.runs.queries import in_states, is_retried
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

# The fault class `infra` as a part of the statement's text. If it were a parameter of a prepared statement, PostgreSQL
# could not tell that an index which has only this fault class is fit for the statement.
_INFRA = Func(template=f"'{FaultClass.INFRA.value}'", output_field=CharField())


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of a request. Each list keeps the runs that have one of its words, and an empty list keeps all runs.
    The last field says whether the runs must be final.
    """

    statuses: Sequence[str]
    faults: Sequence[str]
    sources: Sequence[str]
    final: bool


def final(rows: Rows) -> Rows:
    """Keeps only the runs that no retry follows, except one that a late result canceled."""
    return rows.alias(is_retried=is_retried()).filter(is_retried=False)


def unretried_faults(rows: Rows) -> Rows:
    """Keeps only the runs that infrastructure ended and that are not marked as `retried`. The three indexes
    `run_final_fault…` contain only these runs.
    """
    return rows.filter(fault_class=_INFRA, retried=False)


def parts_of(rows: Rows, wanted: Wanted) -> list[Rows]:
    """Returns querysets that share no row and together have the wanted ones of `rows`.

    Unfinished runs are read by their state, since an environment has few of them. Ended runs are read by their state
    alone if nothing else is asked for, and otherwise by source, state and fault class together. There are at most 24
    parts.
    """
    if not (wanted.statuses or wanted.faults or wanted.sources or wanted.final):
        return [rows]
    if set(wanted.sources) == set(Source.values):
        wanted = Wanted(wanted.statuses, wanted.faults, (), wanted.final)
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
    if not wanted.faults:
        found = in_states(rows, [status])
        yield found.filter(source__in=wanted.sources) if wanted.sources else found


def _ended(rows: Rows, status: str, wanted: Wanted) -> Iterator[Rows]:
    rows = in_states(rows, [status])
    possible = _FAULTS[Status(status)]
    faults = [each for each in possible if not wanted.faults or each in wanted.faults]
    # The final runs that infrastructure ended have indexes of their own, because most runs of this fault class have a
    # retry.
    are_final = wanted.final and FaultClass.INFRA in faults
    if are_final:
        # The indexes `run_final_fault…` contain few runs, so they do without a column for the source.
        part = final(unretried_faults(rows))
        yield part.filter(source__in=wanted.sources) if wanted.sources else part
        faults.remove(FaultClass.INFRA)
    elif not wanted.sources and len(faults) == len(possible):
        yield final(rows) if wanted.final else rows
        return
    for fault, source in product(faults, wanted.sources or Source.values):
        part = rows.filter(source=source, fault_class=fault)
        yield final(part) if wanted.final else part
