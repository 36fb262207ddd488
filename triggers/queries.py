"""Reads triggers and runs for the API, as dicts that hold only what the API shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from pipedai.api.serializers import sources_of
from triggers.models import RUN_COLUMNS, Run, Trigger
from triggers.serializers import LastRunSerializer, TriggerSerializer
from triggers.states import TERMINAL

# The columns of triggers that are read: those that the serializer shows. Only the id of the last run is read here,
# since a second query reads all last runs of a page.
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
            has_mcp_headers=Q(mcp_headers__isnull=False),
            has_webhook_secret=Q(webhook_secret__isnull=False),
            last_run_id=Subquery(newest.values("id")[:1]),
        )
        .values(*_TRIGGER_COLUMNS)
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds `last_run` to each row of `triggers()`: the trigger's newest run as a dict, or None. It takes one query."""
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
