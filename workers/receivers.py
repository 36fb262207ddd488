"""Subscribes the workers' event streams to the domain events."""

from typing import Any

from django.dispatch import receiver

from pipedai.events import Event, happened
from workers.worker_events import record_events


@receiver(happened, dispatch_uid="workers.record_events")
def record(events: tuple[Event, ...], **_: Any) -> None:
    """Keeps what the streams tell of. An error rolls the action back."""
    record_events(events)
