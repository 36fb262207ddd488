"""Shows a run's events to a person: a line for each, in colour on a terminal, without characters that control it."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any, TextIO

from pipedai_worker.api.answers import parse_time
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
    """Tell whether what is written there may be coloured: it is a terminal, and nobody has set NO_COLOR."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shown(event: dict[str, Any], *, colour: bool) -> str:
    """Return an event as lines for a person: its time on this machine's clock, its type, and what it says."""
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
        # The tool's name is the text.
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
