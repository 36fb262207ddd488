"""Follows the events of a run until it ends: from the API, or from the file of a run that is on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pipedai_worker.api.answers import Refused, TokenRefused, Unanswered, Unavailable
from pipedai_worker.api.client import Api
from pipedai_worker.api.patience import Backoff, Outage
from pipedai_worker.commands import arguments
from pipedai_worker.commands.arguments import KEY_VARIABLE, Exit
from pipedai_worker.disk.journal import EVENTS, HELD
from pipedai_worker.events import following
from pipedai_worker.events.spool import SUFFIX, SpoolReader
from pipedai_worker.gateway.events import EventSplitter, EventTooLarge
from pipedai_worker.identity import config as configuration
from pipedai_worker.identity.config import WorkerConfig
from pipedai_worker.values import parse, whole

# The largest event that is read from a stream. What the API sends is far smaller.
LARGEST_EVENT_BYTES = 1024 * 1024
# The API's name for the event that says that the run has ended.
END = b"end"
# While a run's file has nothing new, it is looked at this often.
LOOK_SECONDS = 0.2

EventJson = dict[str, Any]


def from_api(
    api: Api, run_id: str, after: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[EventJson]:
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


def _stream(api: Api, run_id: str, after: int) -> Iterator[EventJson | None]:
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
                    if (found := _event(event.data)) is not None:
                        yield found
            except EventTooLarge:
                raise Unavailable("The stream of events has one that is too large.") from None


def listed(api: Api, run_id: str, after: int) -> Iterator[EventJson]:
    """Yield the events after the number `after` that the API has now."""
    while events := [event for event in api.list_events(run_id, after) if _is_event(event)]:
        yield from events
        after = events[-1]["seq"]


def from_file(
    path: Path,
    after: int,
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[EventJson]:
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


def _event(text: bytes) -> EventJson | None:
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if _is_event(value) else None


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) and whole(value.get("seq")) is not None


class Connect(Protocol):
    """Makes the client of the API at this URL, for a user's key."""

    def __call__(self, url: str, *, key: str) -> Api: ...


def events_of(options: argparse.Namespace, connect: Connect) -> Iterator[dict[str, Any]]:
    """Return the events that the command `logs` is to show. Raises Exit if there are none to be had, and ConfigError.

    They come from the API if there is a key for it, and else from the file that the worker keeps until it has sent
    them.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise Exit(arguments.BAD_CONFIG, f"The key in {KEY_VARIABLE} is damaged.")
    if not key:
        return _on_disk(options)
    url = options.api_url or WorkerConfig.load(options.config).api_url
    return _at_the_api(connect(url, key=key), options)


def _at_the_api(api: Api, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    read = following.from_api if options.follow else following.listed
    try:
        with contextlib.closing(api):
            yield from read(api, options.run, options.after)
    except TokenRefused as refused:
        raise Exit(
            arguments.DEAD_TOKEN, f"The key in {KEY_VARIABLE} was refused: {refused}"
        ) from None
    except Refused as refused:
        sentence = f"The API does not show the events of run {options.run}: {refused}"
        raise Exit(arguments.ERROR, sentence) from None


def _on_disk(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    worker_id = WorkerConfig.load(options.config).worker_id
    state = configuration.state_directory(options.config) / worker_id

    def is_over() -> bool:
        return not options.follow or not (state / HELD / f"{options.run}.json").exists()

    try:
        yield from following.from_file(
            state / EVENTS / f"{options.run}{SUFFIX}", options.after, is_over
        )
    except FileNotFoundError:
        raise Exit(
            arguments.ERROR,
            f"This machine has no events of run {options.run}. The API may have them: set"
            f" {KEY_VARIABLE} to a pwk_ key.",
        ) from None
