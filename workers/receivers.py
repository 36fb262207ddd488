"""Records domain events for the workers' event streams."""

from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, happened
from workers.worker_events import record_events


@receiver(happened, dispatch_uid="workers.record_events")
def record(events: tuple[Event, ...], **_: Any) -> None:
    """Records those events that streams send. An error rolls the action back."""
    record_events(events)
