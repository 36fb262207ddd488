"""Writes one audit row for each domain event, in the transaction of the action."""

import json
from typing import Any

import orjson
from django.dispatch import receiver

from audit.partitions import add_partitions_of
from pipedai.events import Event, happened
from pipedai.ids import new_id
from pipedai.redaction import redact
from pipedai.sql import execute_later

# The statement is raw SQL, since the scheduler sends hundreds of events at once and the ORM takes three times as long.
# All rows are in one JSON parameter, since passing eleven arrays would take longer than all other statements of a run's
# change of state together.
_INSERT = """
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id, created_at)
SELECT id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id,
    coalesce(moment, statement_timestamp())
FROM json_to_recordset(%(entries)s::json) AS e (
    id uuid, environment_id uuid, action text, actor_type text, actor_id uuid, target_type text, target_id uuid,
    metadata jsonb, ip inet, request_id text, moment timestamptz)
"""


@receiver(happened, dispatch_uid="audit.write_entries")
def write_entries(events: tuple[Event, ...], **_: Any) -> None:
    """Inserts one audit row for each of the events, in one statement. An error rolls back the action that sent them."""
    moments = [event.at for event in events]
    add_partitions_of(moment for moment in moments if moment is not None)
    entries = [
        {
            "id": new_id(),
            "environment_id": event.environment_id,
            "action": event.action,
            "actor_type": event.actor.type,
            "actor_id": event.actor.id,
            "target_type": event.target_type,
            "target_id": event.target_id,
            "metadata": redact(event.metadata, keep_lines=True),
            "ip": event.actor.ip,
            "request_id": event.actor.request_id,
            "moment": event.at,
        }
        for event in events
    ]
    execute_later(_INSERT, {"entries": _json(entries)})


def _json(entries: list[dict[str, Any]]) -> str:
    try:
        return orjson.dumps(entries, str).decode()
    except TypeError:  # because of an integer of more than 64 bits
        return json.dumps(entries, default=str)
