"""Reads triggers and runs for the API, as dicts that hold only what the API shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from triggers.models import RUN_COLUMNS, Run, Trigger
from triggers.states import TERMINAL

_TRIGGER_COLUMNS = (
    "id", "environment_id", "worker_id", "name", "description", "mcp_url", "webhook_url", "schedule", "timezone",
    "next_run_at", "enabled", "max_retries", "timeout_seconds", "overlap_policy", "created_at", "updated_at",
)  # fmt: skip

# Whose rows they are, for `find_visible`. What deleted triggers were told is gone with them.
ALL_TRIGGERS = "SELECT id, environment_id FROM trigger"
LIVE_TRIGGERS = f"{ALL_TRIGGERS} WHERE deleted_at IS NULL"
ALL_RUNS = "SELECT id, environment_id FROM run"
LIVE_DELIVERIES = """
SELECT d.id, d.environment_id FROM delivery d JOIN trigger t ON t.id = d.trigger_id WHERE t.deleted_at IS NULL
"""


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
        .values(
            *_TRIGGER_COLUMNS,
            "prompt",
            "model",
            "has_mcp_headers",
            "has_webhook_secret",
            "last_run_id",
        )
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to each row of `triggers()` its `last_run`, or None. It takes one query."""
    ids = [row["last_run_id"] for row in rows if row["last_run_id"]]
    runs = {
        run["id"]: run
        for run in Run.objects.filter(id__in=ids).values("id", "status", "queued_at", "ended_at")
    }
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
