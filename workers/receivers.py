"""Receives the domain events of all apps, and records those that workers' event streams send."""

from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, happened
from workers.worker_events import record_events


@receiver(happened, dispatch_uid="workers.record_events")
def record(events: tuple[Event, ...], **_: Any) -> None:
    """Records the domain events that event streams send. An exception here also rolls back the action they report."""
    record_events(events)
