"""Follows the events of a run until it ends: from the API, or from the file of a run that is on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipedai_worker.answers import Unanswered, Unavailable
from pipedai_worker.api import Api
from pipedai_worker.backoff import Backoff
from pipedai_worker.events.spool import SpoolReader
from pipedai_worker.gateway.events import EventSplitter, EventTooLarge
from pipedai_worker.json_values import parse
from pipedai_worker.numbers import whole
from pipedai_worker.patience import Outage

# The largest event that is read from a stream. What the API sends is far smaller.
LARGEST_EVENT_BYTES = 1024 * 1024
# The API's name for the event that says that the run has ended.
END = b"end"
# While a run's file has nothing new, it is looked at this often.
LOOK_SECONDS = 0.2

RunEvent = dict[str, Any]


def from_api(
    api: Api, run_id: str, after: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunEvent]:
    """Yield the events after the number `after`, and those that come, until the run ends.

    A stream that breaks off is opened again, where it was. Raises TokenRefused, and Refused if the API does not show
    the run's events to this key.
    """
    backoff, outage = Backoff(), Outage()
    while True:
        try:
            for event in _stream(api, run_id, after):
                outage.answered()
                backoff.reset()
                if event is None:
                    return
                if event["seq"] > after:
                    after = event["seq"]
                    yield event
            delay = backoff.next_delay()
        except Unanswered as error:
            outage.failed(error)
            delay = backoff.next_delay(error.retry_after)
        sleep(delay)


def _stream(api: Api, run_id: str, after: int) -> Iterator[RunEvent | None]:
    """Yield the events of one stream, and None if it says that the run has ended."""
    splitter = EventSplitter(LARGEST_EVENT_BYTES)
    with contextlib.closing(api.stream_events(run_id, after)) as chunks:
        for chunk in chunks:
            if chunk is None:
                yield None
                return
            try:
                for event in splitter.feed(chunk):
                    if event.kind == END:
                        yield None
                        return
                    # A comment, which keeps the connection open, has no data.
                    if (told := _event(event.data)) is not None:
                        yield told
            except EventTooLarge:
                raise Unavailable("The stream of events has one that is too large.") from None


def listed(api: Api, run_id: str, after: int) -> Iterator[RunEvent]:
    """Yield the events after the number `after` that the API has now."""
    while events := [event for event in api.list_events(run_id, after) if _is_event(event)]:
        yield from events
        after = events[-1]["seq"]


def from_file(
    path: Path,
    after: int,
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RunEvent]:
    """Yield the events of the file after the number `after`, and those that are added until the run is over.

    Raises FileNotFoundError.
    """
    with contextlib.closing(SpoolReader(path)) as reader:
        reader.go_to(after + 1)
        while True:
            # What was added before the run was over is still read.
            over = reader.removed or is_over()
            lines = reader.lines()
            for line in lines:
                if (event := _event(line)) is not None:
                    yield event
            reader.go_to(reader.seq + len(lines))
            if over and not lines:
                return
            if not lines:
                sleep(LOOK_SECONDS)


def _event(text: bytes) -> RunEvent | None:
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if _is_event(value) else None


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) and whole(value.get("seq")) is not None
