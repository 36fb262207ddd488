"""Reads the events that a worker sends of its run."""

from collections.abc import Iterator
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.parsers import TOO_DEEP
from pipedai.api.serializers import Body
from triggers.run_events.event import MAX_CALL_EVENTS, MAX_TYPE, RunEvent, make_event
from workers.protocol.fields import time_of

# The largest number of an event. The columns of the tables also hold the number after it.
MAX_SEQ = 2**31 - 2


@extend_schema_field(
    {
        "type": "array",
        "maxItems": MAX_CALL_EVENTS,
        "items": {
            "type": "object",
            "required": ["seq", "at", "type"],
            "properties": {
                "seq": {"type": "integer", "minimum": 1, "maximum": MAX_SEQ},
                "at": {"type": "string", "format": "date-time"},
                "type": {"type": "string", "minLength": 1, "maxLength": MAX_TYPE},
                "text": {"type": ["string", "null"]},
                "data": {},
            },
        },
    }
)
class EventsField(serializers.Field[Any, Any, Any, Any]):
    """A list of events. It is read without a serializer for each event, because a worker sends many of them."""

    def to_internal_value(self, data: Any) -> list[RunEvent]:
        return events_of(data)


def events_of(data: Any) -> list[RunEvent]:
    if not isinstance(data, list):
        raise serializers.ValidationError("Must be a list.")
    if len(data) > MAX_CALL_EVENTS:
        raise serializers.ValidationError(f"Must not hold more than {MAX_CALL_EVENTS} events.")
    return list(_events(data))


def _events(items: list[Any]) -> Iterator[RunEvent]:
    for place, item in enumerate(items, 1):
        wrong, seq, at = "be an object", None, None
        if isinstance(item, dict):
            seq, at = item.get("seq"), time_of(item.get("at"))
            wrong = _wrong(item, seq, at)
        if wrong:
            raise serializers.ValidationError(f"Event {place} of the list must {wrong}.")
        data = item.get("data")
        assert isinstance(seq, int)
        assert at is not None
        yield make_event(
            seq,
            at=at,
            type_=item["type"],
            text=item.get("text"),
            data=None if data is TOO_DEEP else data,
        )


def _wrong(item: dict[str, Any], seq: Any, at: str | None) -> str:
    """Returns what an event must have and has not, or an empty text."""
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq <= MAX_SEQ:
        return f"have a whole number from 1 to {MAX_SEQ} as seq"
    if at is None:
        return "have a time with its offset from UTC as at"
    type_ = item.get("type")
    if not isinstance(type_, str) or not 1 <= len(type_) <= MAX_TYPE:
        return f"have a text of 1 to {MAX_TYPE} characters as type"
    if not isinstance(item.get("text"), str | None):
        return "have a text or null as text"
    return ""


class EventsBody(Body):
    events = EventsField()
