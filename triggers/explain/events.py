"""Explains what became of events for a trigger that listens, and names the event that queued a run (SPEC §25)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from triggers.explain.answers import EventExplanation, EventNamed, Subject
from triggers.explain.clock_words import moment_words
from triggers.models import Event, EventDecision
from triggers.states import EventDecided

_OF_EVENT = ("source", "run__trigger")
# What is read of an event: neither its body, nor the secrets of its source and trigger.
_READ = ("type", "received_at", "source__name", "run__status", "run__trigger__name")


def event_of_run(event_id: UUID) -> EventNamed | None:
    """Returns None if the event has been pruned."""
    event = Event.objects.select_related(*_OF_EVENT).only(*_READ).filter(id=event_id).first()
    return None if event is None else _named(event)


def last_event(
    trigger_id: UUID, *, at: datetime, now: datetime, shows_values: bool
) -> EventExplanation | None:
    """Returns what was decided for the trigger about the last event up to `at`, or None if it heard of none. Without
    `shows_values` it does not tell what a clause saw, which is a part of the event's payload.
    """
    decisions = EventDecision.objects.filter(trigger_id=trigger_id, received_at__lte=at)
    related = [f"event__{name}" for name in _OF_EVENT]
    read = ("decision", "code", "clause", "run_id", *(f"event__{name}" for name in _READ))
    rows = decisions.select_related(*related).only(*read)
    found = rows.order_by("-received_at", "-id").first()
    if found is None:
        return None
    event, clause = _named(found.event), found.clause
    if clause is not None and not shows_values and clause["path"] is not None:
        clause = {**clause, "saw": None}
    message = (
        f"The {_words(event)} of {moment_words(event.received_at, now)} {_became(found, clause)}."
    )
    return EventExplanation(event, found.decision, found.code, clause, found.run_id, message)


def _named(event: Any) -> EventNamed:
    if event.run is None:
        source = Subject("source", event.source.id, event.source.name)
        return EventNamed(event.id, event.type, event.received_at, source)
    trigger, run = event.run.trigger, event.run
    source = Subject("trigger", trigger.id, trigger.name)
    return EventNamed(event.id, run.status, event.received_at, source, run.id)


def _words(event: EventNamed) -> str:
    if event.run_id is not None:
        return f"end of a run of {event.source.name}"
    kind = f"event {event.type}" if event.type else "event"
    return f"{kind} from {event.source.name}"


def _became(found: EventDecision, clause: Any) -> str:
    if found.decision == EventDecided.FIRED:
        return "queued a run"
    if found.decision == EventDecided.COALESCED:
        return "joined a run that an earlier event had queued"
    if found.decision == EventDecided.REFUSED:
        return f"started nothing: it was refused with {found.code}"
    if clause is None:
        return "started nothing"
    if clause["path"] is None:
        return f"started nothing: its {clause['op']} is {clause['saw']}, which does not count"
    words = f"started nothing: {clause['path'] or 'the body'} {clause['op']} did not hold"
    return words if clause["saw"] is None else f"{words} for {clause['saw']}"
