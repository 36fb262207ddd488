"""Defines an event of a run, in the form in which it is stored and answered, and the limits of events (SPEC §18)."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from pipedai.api.renderers import compact_json

KIB = 1024
# The most events, and the most bytes of its body, that one call may send.
MAX_CALL_EVENTS, MAX_CALL_BYTES = 500, 256 * KIB
# The most bytes of events that a run stores, and an environment on one day (UTC). The events' JSON in UTF-8 counts.
MAX_RUN_BYTES = 5 * KIB * KIB
MAX_DAY_BYTES = KIB * KIB * KIB
MAX_TYPE = 64
# How long after its end a run still takes events.
TAKEN_AFTER_END = timedelta(hours=24)

# The type of the event that stands where a run's events end because a limit was reached.
TRUNCATED = "truncated"


class RunEvent(NamedTuple):
    seq: int
    json: str

    @property
    def size(self) -> int:
        return len(self.json.encode())


def make_event(seq: int, *, at: str, type_: str, text: str | None, data: Any) -> RunEvent:
    """Returns an event with its JSON text. `at` is a time in the API's form."""
    # The text is put together here, because an encoder of JSON takes three times as long for an object. It is the same
    # text as `compact_json` makes, without line ends.
    type_, told = encode_basestring(type_), "null" if text is None else encode_basestring(text)
    more = "null" if data is None else compact_json(data)
    return RunEvent(seq, f'{{"seq":{seq},"at":"{at}","type":{type_},"text":{told},"data":{more}}}')


def joined(events: Sequence[RunEvent]) -> tuple[str, int]:
    """Returns JSON texts as lines of one text, which PostgreSQL splits faster than Python can make an array, and the
    bytes that count against the limits.
    """
    lines = "\n".join(event.json for event in events)
    return lines, len(lines.encode()) - (len(events) - 1)


def fitting(events: Sequence[RunEvent], room: int) -> Sequence[RunEvent]:
    sums = accumulate(event.size for event in events)
    return events[: sum(total <= room for total in sums)]
