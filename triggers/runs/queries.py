"""Reads runs for the API, as dicts that hold only what the API shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, QuerySet, When

from triggers.models import RUN_COLUMNS, Run
from triggers.states import TERMINAL

# The columns that `runs` adds to those of the table of runs.
_ADDED = ("trigger_name", "error_message", "will_retry")


def runs(of: QuerySet[Run, Any] | None = None) -> QuerySet[Run, dict[str, Any]]:
    """Returns the runs of a queryset, or all runs, as dicts for RunSerializer."""
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
    """Returns the runs with these ids as dicts for RunSerializer, in the order of the ids."""
    rows = {row["id"]: row for row in runs().filter(id__in=ids)}
    return [rows[run_id] for run_id in ids if run_id in rows]


def in_states(rows: QuerySet[Run, Any], states: Sequence[str]) -> QuerySet[Run, Any]:
    """Keeps only the runs that are in one of these states.

    If these are all states of ended runs, or all of unfinished runs, it also adds the matching condition on `ended_at`.
    PostgreSQL needs that condition to choose an index, since each index has either only ended or only unfinished runs.
    """
    ended = {state in TERMINAL for state in states}
    if len(ended) == 1:
        rows = rows.filter(ended_at__isnull=not ended.pop())
    return rows.filter(status__in=states)


def run_in_full(run_id: UUID) -> dict[str, Any]:
    """Returns one run as a dict for RunDetailSerializer. Raises Run.DoesNotExist."""
    row: dict[str, Any] = (
        runs()
        .annotate(
            payload=F("text__payload"),
            late_result=F("text__late_result"),
            mcp_url=F("text__mcp_url"),
            prompt=F("revision__prompt"),
            output=F("result__output"),
        )
        .values(
            *RUN_COLUMNS,
            *_ADDED,
            "payload",
            "late_result",
            "mcp_url",
            "prompt",
            "tool_calls_total",
            "tool_calls_effects",
            "tool_calls_unknown",
            "output",
        )
        .get(id=run_id)
    )
    return row


def tool_calls_of(run_id: UUID) -> dict[str, Any]:
    """Returns the API's answer about a run's tool calls: the calls that its worker listed, and the number of all its
    calls. Raises Run.DoesNotExist.
    """
    row = Run.objects.values("tool_calls_total", "result__tool_calls").get(id=run_id)
    return {"items": row["result__tool_calls"] or [], "total": row["tool_calls_total"]}
