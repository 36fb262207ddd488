"""Writes one audit row for each domain event, in the transaction of what it tells of (SPEC §9)."""

import json
from typing import Any

from django.dispatch import receiver

from audit.partitions import add_partitions_of
from pipedai.events import Event, happened
from pipedai.ids import new_id
from pipedai.redaction import redact
from pipedai.sql import execute

# Not by the ORM: a scheduler's batch has hundreds of events, and this takes a third of the time.
_INSERT = """
INSERT INTO audit_entry (
    id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id, created_at)
SELECT id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id,
    coalesce(moment, statement_timestamp())
FROM unnest(
    %(ids)s::uuid[], %(environment_ids)s::uuid[], %(actions)s::text[], %(actor_types)s::text[], %(actor_ids)s::uuid[],
    %(target_types)s::text[], %(target_ids)s::uuid[], %(metadata)s::jsonb[], %(ips)s::inet[], %(request_ids)s::text[],
    %(moments)s::timestamptz[])
    AS e (id, environment_id, action, actor_type, actor_id, target_type, target_id, metadata, ip, request_id, moment)
"""


@receiver(happened, dispatch_uid="audit.write_entries")
def write_entries(events: tuple[Event, ...], **_: Any) -> None:
    """Inserts the rows of the events in one statement. An error rolls the action back."""
    moments = [event.at for event in events]
    add_partitions_of(moment for moment in moments if moment is not None)
    execute(
        _INSERT,
        {
            "ids": [new_id() for _ in events],
            "environment_ids": [event.environment_id for event in events],
            "actions": [event.action for event in events],
            "actor_types": [event.actor.type for event in events],
            "actor_ids": [event.actor.id for event in events],
            "target_types": [event.target_type for event in events],
            "target_ids": [event.target_id for event in events],
            "metadata": [json.dumps(redact(event.metadata)) for event in events],
            "ips": [event.actor.ip for event in events],
            "request_ids": [event.actor.request_id for event in events],
            "moments": moments,
        },
    )
