"""Follows the events of a run until it ends, from the API or a file of this machine, and shows them to people."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from pipedai_worker.api.answers import Refused, TokenRefused, Unanswered, Unavailable, parse_time
from pipedai_worker.api.client import Api
from pipedai_worker.api.patience import Backoff, Outage
from pipedai_worker.commands import arguments
from pipedai_worker.commands.arguments import KEY_VARIABLE, Exit
from pipedai_worker.disk.journal import EVENTS, HELD, KEPT, SENT
from pipedai_worker.events.kinds import (
    MESSAGE,
    RESULT,
    STATUS,
    STDERR,
    THINKING,
    TOOL_CALL,
    TOOL_RESULT,
    TRUNCATED,
)
from pipedai_worker.events.spool import SpoolReader
from pipedai_worker.gateway.reading import EventSplitter, EventTooLarge
from pipedai_worker.identity import config as configuration
from pipedai_worker.identity.config import WorkerConfig
from pipedai_worker.logs import get_logger
from pipedai_worker.values import parse, whole

log = get_logger(__name__)

# The largest event that is read from a stream. What the API sends is far smaller.
LARGEST_EVENT_BYTES = 1024 * 1024
# The API's name for the event that says that the run has ended.
END = b"end"
# While a run's file has nothing new, it is looked at this often.
LOOK_SECONDS = 0.2

EventJson = dict[str, Any]


def from_api(api: Api, run_id: str, after: int) -> Iterator[EventJson]:
    """Yield the events after a number, until the run ends. A stream that breaks off is opened again."""
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
        time.sleep(delay)


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
    while events := [e for e in api.list_events(run_id, after)["items"] if _is_event(e)]:
        yield from events
        after = events[-1]["seq"]


def from_file(path: Path, after: int, is_over: Callable[[], bool]) -> Iterator[EventJson]:
    """Yield the file's events after a number until the run is over. Raises FileNotFoundError."""
    with contextlib.closing(SpoolReader(path)) as reader:
        reader.go_to(after + 1)
        while True:
            # The end is noted before the lines are read, so that events added before the end are read too.
            over = reader.removed or is_over()
            lines = reader.lines()
            for line in lines:
                if (event := _event(line)) is not None:
                    yield event
            reader.go_to(reader.seq + len(lines))
            if over and not lines:
                return
            if not lines:
                time.sleep(LOOK_SECONDS)


def _event(text: bytes) -> EventJson | None:
    try:
        value = parse(text)
    except ValueError:
        return None
    return value if _is_event(value) else None


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) and whole(value.get("seq")) is not None


def events_of(options: argparse.Namespace, connect: Callable[..., Api]) -> Iterator[EventJson]:
    """Return the events that the command `logs` is to show. If there are none, the log says why in one sentence.
    `connect` returns a client of the API for a URL and a `key`.

    They come from the API if there is a key for it, and else from the file that the worker keeps until it has sent
    them. Raises Exit if they can't be had, and ConfigError.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise Exit(arguments.BAD_CONFIG, f"The key in {KEY_VARIABLE} is damaged.")
    if not key:
        return _on_disk(options)
    url = options.api_url or WorkerConfig.load(options.config).api_url
    return _at_the_api(connect(url, key=key), options)


def _at_the_api(api: Api, options: argparse.Namespace) -> Iterator[EventJson]:
    read = from_api if options.follow else listed
    told, said = False, None
    try:
        with contextlib.closing(api):
            if options.follow:
                # Whoever follows a run that tells nothing yet learns at once whether there is something to wait for.
                with contextlib.suppress(Unanswered):
                    said = _say_why_none(api, options)
            for event in read(api, options.run, options.after):
                told = True
                yield event
            if not told:
                _say_why_none(api, options, said)
    except TokenRefused as refused:
        raise Exit(
            arguments.DEAD_TOKEN, f"The key in {KEY_VARIABLE} was refused: {refused}"
        ) from None
    except Refused as refused:
        sentence = f"The API does not show the events of run {options.run}: {refused}"
        raise Exit(arguments.ERROR, sentence) from None


def _say_why_none(api: Api, options: argparse.Namespace, said: str | None = None) -> str | None:
    """Log a sentence on why the API has no events to show, unless it was `said` before, and return it."""
    answer = api.list_events(options.run, options.after)
    if answer["items"]:
        return None
    why = str(answer.get("whyNone") or f"The run has no events after number {options.after}.")
    if why != said:
        log.info("%s", why)
    return why


def _on_disk(options: argparse.Namespace) -> Iterator[EventJson]:
    worker_id = WorkerConfig.load(options.config).worker_id
    state = configuration.state_directory(options.config) / worker_id

    def is_over() -> bool:
        return not options.follow or not (state / HELD / f"{options.run}.json").exists()

    try:
        paths = [state / EVENTS / f"{options.run}{suffix}" for suffix in (KEPT, SENT)]
        path = next(filter(Path.exists, paths), paths[0])
        told = False
        for event in from_file(path, options.after, is_over):
            told = True
            yield event
    except FileNotFoundError:
        raise Exit(
            arguments.ERROR,
            f"This machine has no events of run {options.run}: set {KEY_VARIABLE} to a pwk_ key, so that the API is"
            " asked for them, or says why there are none.",
        ) from None
    if not told:
        log.info("The run has no events after number %d on this machine.", options.after)


# The parameters of the terminal's colours (ECMA-48, SGR).
_COLOURS = {
    MESSAGE: "1",
    THINKING: "2;3",
    TOOL_CALL: "36",
    TOOL_RESULT: "2",
    STATUS: "2",
    STDERR: "33",
    RESULT: "32",
    TRUNCATED: "31",
}
_FAILED_COLOUR = "31"
_TYPE_WIDTH = 11
_INDENT = " " * (9 + _TYPE_WIDTH + 1)
LONGEST_DATA = 300


def wants_colour(file: TextIO) -> bool:
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shown(event: dict[str, Any], *, colour: bool) -> str:
    kind = harmless(str(event.get("type")))
    lines = [harmless(line) for line in _said(event).split("\n")]
    text = f"\n{_INDENT}".join(lines)
    if colour and (code := _colour(event)):
        text = f"\x1b[{code}m{text}\x1b[0m"
    return f"{_time(event.get('at'))} {kind:<{_TYPE_WIDTH}} {text}".rstrip()


def harmless(text: str) -> str:
    """Return one line in which each character that a terminal would act upon, or that nobody sees, is an escape."""
    text = text.expandtabs(4)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _said(event: dict[str, Any]) -> str:
    text, data = event.get("text"), event.get("data")
    said = text.rstrip("\n") if isinstance(text, str) else ""
    if event.get("type") == TOOL_CALL and isinstance(data, dict):
        # The tool's name is the event's text, so only the tool's input is shown here.
        data = data.get("input")
    elif said:
        return said
    text = json.dumps(data, ensure_ascii=False) if data is not None else ""
    if len(text) > LONGEST_DATA:
        text = f"{text[: LONGEST_DATA - 1]}…"
    return f"{said} {text}".strip()


def _colour(event: dict[str, Any]) -> str | None:
    data = event.get("data")
    if isinstance(data, dict) and data.get("isError") is True:
        return _FAILED_COLOUR
    return _COLOURS.get(str(event.get("type")))


def _time(at: object) -> str:
    moment = parse_time(at)
    if moment is None:
        return "--:--:--"
    return f"{datetime.fromtimestamp(moment, tz=timezone.utc).astimezone():%H:%M:%S}"
