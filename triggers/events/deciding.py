"""Decides for each trigger that listens what an event starts (SPEC §25)."""

from triggers.models import Event, EventDecision


def decide(event: Event) -> list[EventDecision]:  # noqa: ARG001 - the other half of the work uses it
    """Decides what the event starts, writes the decisions and queues the runs, in the caller's transaction. The event's
    row is written, and its `received_at` is read.
    """
    return []
