"""Reads runs for the API, as dicts that hold only what the API shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, QuerySet, When

from triggers.models import RUN_COLUMNS, Run
from triggers.states import FAILURES, TERMINAL

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
            "denials_total",
            "denied_tools",
            "output",
        )
        .get(id=run_id)
    )
    return row


def tool_calls_of(run_id: UUID) -> dict[str, Any]:
    """Returns the listed calls and the number of all. Raises Run.DoesNotExist."""
    row = Run.objects.values("tool_calls_total", "result__tool_calls").get(id=run_id)
    return {"items": row["result__tool_calls"] or [], "total": row["tool_calls_total"]}
