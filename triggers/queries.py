"""Reads triggers and runs for the API: as dicts, with what is shown of them and nothing else."""

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
    """Triggers that are not deleted, as dicts for TriggerSerializer; `with_last_runs` completes them."""
    newest = Run.objects.filter(trigger_id=OuterRef("id")).order_by("-queued_at", "-id")
    rows: QuerySet[Trigger, dict[str, Any]] = (
        Trigger.objects.filter(deleted_at__isnull=True)
        .annotate(
            prompt=F("revision__prompt"),
            model=F("revision__model"),
            has_mcp_headers=Q(mcp_headers__isnull=False),
            has_webhook_secret=Q(webhook_secret__isnull=False),
            last_run_id=Subquery(newest.values("id")[:1]),
        )
        .values(*_TRIGGER_COLUMNS)
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows of `triggers()`, each with its `last_run`. One query."""
    ids = [row["last_run_id"] for row in rows if row["last_run_id"]]
    runs = {run["id"]: run for run in Run.objects.filter(id__in=ids).values(*_LAST_RUN_COLUMNS)}
    return [{**row, "last_run": runs.get(row["last_run_id"])} for row in rows]


def runs() -> QuerySet[Run, dict[str, Any]]:
    """Runs as dicts for RunSerializer."""
    rows: QuerySet[Run, dict[str, Any]] = Run.objects.annotate(
        trigger_name=F("trigger__name"), error_message=F("text__error_message")
    ).values(*RUN_COLUMNS, "trigger_name", "error_message")
    return rows


def in_states(rows: QuerySet[Run, Any], states: Sequence[str]) -> QuerySet[Run, Any]:
    """The runs in one of these states. Whether they have ended follows from that, but PostgreSQL must be told: the
    indexes by state hold either those that have or those that have not.
    """
    ended = {state in TERMINAL for state in states}
    if len(ended) == 1:
        rows = rows.filter(ended_at__isnull=not ended.pop())
    return rows.filter(status__in=states)


def run_in_full(run_id: UUID) -> dict[str, Any]:
    """One run as a dict for RunDetailSerializer. Raises Run.DoesNotExist."""
    row: dict[str, Any] = (
        runs()
        .annotate(
            payload=F("text__payload"),
            late_result=F("text__late_result"),
            mcp_url=F("text__mcp_url"),
            prompt=F("revision__prompt"),
        )
        .values(
            *RUN_COLUMNS,
            "trigger_name",
            "error_message",
            "payload",
            "late_result",
            "mcp_url",
            "prompt",
        )
        .get(id=run_id)
    )
    return row  # fmt: skip
