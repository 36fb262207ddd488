"""Knows which reports of a run's tool calls the real API accepts, so that the fake API notices all others."""

from __future__ import annotations

import re
from typing import Any

LONGEST_LIST = 500
LONGEST_NAME = 200
_MOST = 2**31 - 1
_COUNTS = ("total", "effects", "unknown")
_OUTCOMES = ("ok", "error", "unknown")
_EFFECTS = ("none", "idempotent", "possible")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def flaw(body: dict[str, Any], earlier: dict[str, int] | None) -> str | None:
    """Return a sentence on what is wrong with the tool calls in a heartbeat or a report; None if nothing is.

    A body may leave the tool calls out or have null in their place. `earlier` are the counts that the worker told last
    for this run. The counts `total` and `effects` must never become smaller.
    """
    counts = body.get("toolCalls")
    if counts is not None:
        if (problem := _flaw_of_counts(counts)) is not None:
            return problem
        for name in ("total", "effects"):
            if earlier is not None and counts[name] < earlier[name]:
                return f"toolCalls.{name} went down from {earlier[name]} to {counts[name]}"
    return _flaw_of_list(body.get("toolCallList"), counts)


def _flaw_of_counts(counts: Any) -> str | None:
    if not isinstance(counts, dict):
        return "toolCalls is no object"
    for name in _COUNTS:
        if not _is_count(counts.get(name)):
            return f"toolCalls.{name} is no whole number from 0 to {_MOST}"
    for name in ("effects", "unknown"):
        if counts[name] > counts["total"]:
            return f"toolCalls.{name} exceeds toolCalls.total"
    return None


def _flaw_of_list(calls: Any, counts: Any) -> str | None:
    if calls is None:
        return None
    if not isinstance(calls, list):
        return "toolCallList is no list"
    if len(calls) > LONGEST_LIST:
        return f"toolCallList has more than {LONGEST_LIST} items"
    if counts is not None and len(calls) > counts["total"]:
        return "toolCallList has more items than toolCalls.total says"
    for number, call in enumerate(calls):
        if (problem := _flaw_of_call(call)) is not None:
            return f"toolCallList[{number}] {problem}"
    return None


def _flaw_of_call(call: Any) -> str | None:
    if not isinstance(call, dict):
        return "is no object"
    at, tool, duration = call.get("at"), call.get("tool"), call.get("durationMs")
    if not isinstance(at, str) or not _TIME.fullmatch(at):
        return "has no time with its offset from UTC in `at`"
    if not isinstance(tool, str) or not 1 <= len(tool) <= LONGEST_NAME:
        return f"has no name of 1 to {LONGEST_NAME} characters in `tool`"
    if duration is not None and not _is_count(duration):
        return "has no whole number of milliseconds in `durationMs`"
    if call.get("outcome") not in _OUTCOMES:
        return "has none of the outcomes in `outcome`"
    if call.get("effect") not in _EFFECTS:
        return "has none of the effects in `effect`"
    return None


def _is_count(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and 0 <= value <= _MOST
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
