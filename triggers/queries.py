"""Reads triggers and runs for the API, as dicts that hold only what the API shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from pipedai.api.serializers import sources_of
from triggers.models import RUN_COLUMNS, Run, Trigger
from triggers.serializers import LastRunSerializer, TriggerSerializer
from triggers.states import TERMINAL

# What the serializer shows is loaded. Last runs come from a query of their own, by their ids.
_TRIGGER_COLUMNS = sorted(sources_of(TriggerSerializer) - {"last_run"} | {"last_run_id"})
_LAST_RUN_COLUMNS = sorted(sources_of(LastRunSerializer))


def triggers() -> QuerySet[Trigger, dict[str, Any]]:
    """Returns the triggers that are not deleted, as dicts. `with_last_runs` makes them ready for TriggerSerializer."""
    newest = Run.objects.filter(trigger_id=OuterRef("id")).order_by("-queued_at", "-id")
    rows: QuerySet[Trigger, dict[str, Any]] = (
        Trigger.objects.filter(deleted_at__isnull=True)
        .annotate(
            prompt=F("revision__prompt"),
            model=F("revision__model"),
            output_schema=F("revision__output_schema"),
            has_mcp_headers=Q(mcp_headers__isnull=False),
            has_webhook_secret=Q(webhook_secret__isnull=False),
            last_run_id=Subquery(newest.values("id")[:1]),
        )
        .values(*_TRIGGER_COLUMNS)
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each row of `triggers()` its `last_run`, or None. It takes one query."""
    ids = [row["last_run_id"] for row in rows if row["last_run_id"]]
    runs = {run["id"]: run for run in Run.objects.filter(id__in=ids).values(*_LAST_RUN_COLUMNS)}
    return [{**row, "last_run": runs.get(row["last_run_id"])} for row in rows]


def runs() -> QuerySet[Run, dict[str, Any]]:
    """Returns runs as dicts for RunSerializer."""
    rows: QuerySet[Run, dict[str, Any]] = Run.objects.annotate(
        trigger_name=F("trigger__name"), error_message=F("text__error_message")
    ).values(*RUN_COLUMNS, "trigger_name", "error_message")
    return rows


def in_states(rows: QuerySet[Run, Any], states: Sequence[str]) -> QuerySet[Run, Any]:
    """Keeps the runs in one of these states.

    The condition on `ended_at` follows from the states, but PostgreSQL needs it to choose an index: each index by state
    contains either ended or unfinished runs.
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
            "trigger_name",
            "error_message",
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
    """Returns the answer with a run's tool calls: the listed ones, and how many it made. Raises Run.DoesNotExist."""
    row = Run.objects.values("tool_calls_total", "result__tool_calls").get(id=run_id)
    return {"toolCalls": row["result__tool_calls"] or [], "total": row["tool_calls_total"]}
