"""Follows the events of a run of this machine until it ends, and shows them to people."""

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

from pipedai_worker.api.answers import parse_time
from pipedai_worker.commands import arguments
from pipedai_worker.commands.arguments import Exit
from pipedai_worker.disk.journal import EVENTS, HELD, KEPT, SENT
from pipedai_worker.events.spool import (
    MESSAGE,
    RESULT,
    STATUS,
    STDERR,
    THINKING,
    TOOL_CALL,
    TOOL_RESULT,
    TRUNCATED,
    SpoolReader,
)
from pipedai_worker.identity import config as configuration
from pipedai_worker.identity.config import WorkerConfig
from pipedai_worker.logs import get_logger
from pipedai_worker.values import parse, whole

log = get_logger(__name__)

# While a run's file has nothing new, it is looked at this often.
LOOK_SECONDS = 0.2

EventJson = dict[str, Any]


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
    return value if isinstance(value, dict) and whole(value.get("seq")) is not None else None


def events_of(options: argparse.Namespace) -> Iterator[EventJson]:
    """Yield the events that the command `logs` is to show, from the file that the worker keeps until it has sent them.
    If there are none, the log says so. Raises Exit if this machine has no file of the run, and ConfigError.
    """
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
            f"This machine has no events of run {options.run}. `pipedai run logs {options.run}` asks the service for"
            " them, or says why there are none.",
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
