"""Writes one audit row for each domain event, in the transaction of what it tells of (SPEC §9)."""

from typing import Any

from django.dispatch import receiver

from audit.models import AuditEntry
from pipedai.events import Event, happened
from pipedai.redaction import redact


@receiver(happened, dispatch_uid="audit.write_entries")
def write_entries(events: tuple[Event, ...], **_: Any) -> None:
    """Inserts the rows of the events in one statement. An error rolls the action back."""
    AuditEntry.objects.bulk_create(
        [
            AuditEntry(
                environment_id=event.environment_id,
                action=event.action,
                actor_type=event.actor.type,
                actor_id=event.actor.id,
                target_type=event.target_type,
                target_id=event.target_id,
                metadata=redact(event.metadata),
                ip=event.actor.ip,
                request_id=event.actor.request_id,
            )
            for event in events
        ]
    )
