"""Reads events for the API, as dicts with the decisions of each."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from triggers.models import Event, EventDecision

COLUMNS = (
    "id",
    "given_id",
    "type",
    "received_at",
    "duplicates",
    "replay_of_id",
    "environment_id",
    "source_id",
    "run_id",
)
_DECIDED = ("event_id", "trigger_id", "trigger__name", "decision", "code", "clause", "run_id")


def with_decisions(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds the decisions to each event, in one query."""
    found = defaultdict(list)
    ids = [event["id"] for event in events]
    for row in EventDecision.objects.filter(event_id__in=ids).order_by("id").values(*_DECIDED):
        found[row["event_id"]].append(row)
    return [{**event, "decisions": found[event["id"]]} for event in events]


def events_in_order(ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Returns these events in the order of the ids, without those that are pruned."""
    rows = {row["id"]: row for row in Event.objects.filter(id__in=ids).values(*COLUMNS)}
    return [rows[id_] for id_ in ids if id_ in rows]


def event_in_full(event_id: UUID) -> dict[str, Any]:
    """Returns one event as a dict for EventDetailSerializer. Raises Event.DoesNotExist."""
    (event,) = with_decisions([Event.objects.values(*COLUMNS, "body").get(id=event_id)])
    return event
