"""Reads what a worker tells of a run's tool calls. What is malformed is dropped, so that no outcome is lost for it."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.renderers import iso_time
from triggers.runs.outcome import CALL_EFFECTS, CALL_OUTCOMES, MAX_LISTED_CALLS, ToolCalls

MAX_TOOL_NAME = 200
# The largest number that the integer columns of a run can hold.
_MOST = 2**31 - 1

_COUNT = {"type": "integer", "minimum": 0, "maximum": _MOST}


@extend_schema_field(
    {
        "type": "object",
        "required": ["total", "effects", "unknown"],
        "properties": {"total": _COUNT, "effects": _COUNT, "unknown": _COUNT},
    }
)
class ToolCallsField(serializers.Field[Any, Any, Any, Any]):
    """The counts of a run's tool calls; never refused."""

    def to_internal_value(self, data: Any) -> ToolCalls | None:
        """Returns the counts, or None if one is no whole number, is out of range, or exceeds the total."""
        if not isinstance(data, dict):
            return None
        total, effects, unknown = (
            _count(data.get(name)) for name in ("total", "effects", "unknown")
        )
        if total is None or effects is None or unknown is None or max(effects, unknown) > total:
            return None
        return ToolCalls(total, effects, unknown)


@extend_schema_field(
    {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["at", "tool", "outcome", "effect"],
            "properties": {
                "at": {"type": "string", "format": "date-time"},
                "tool": {"type": "string", "minLength": 1},
                "durationMs": {"type": ["integer", "null"], "minimum": 0},
                "outcome": {"type": "string", "enum": list(CALL_OUTCOMES)},
                "effect": {"type": "string", "enum": list(CALL_EFFECTS)},
            },
        },
    }
)
class ToolCallListField(serializers.Field[Any, Any, Any, Any]):
    """The first tool calls of a run; never refused."""

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        """Returns the first MAX_LISTED_CALLS calls that are well-formed, in the form of the API."""
        return list(islice(_calls(data if isinstance(data, list) else []), MAX_LISTED_CALLS))


def _calls(items: list[Any]) -> Iterator[dict[str, Any]]:
    for item in items:
        if not isinstance(item, dict):
            continue
        at, tool = _time(item.get("at")), item.get("tool")
        outcome, effect = item.get("outcome"), item.get("effect")
        if (
            at
            and isinstance(tool, str)
            and tool
            and _is_one(outcome, CALL_OUTCOMES)
            and _is_one(effect, CALL_EFFECTS)
        ):
            yield {
                "at": at,
                "tool": tool[:MAX_TOOL_NAME],
                "durationMs": _count(item.get("durationMs")),
                "outcome": outcome,
                "effect": effect,
            }


def _is_one(value: Any, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def _count(value: Any) -> int | None:
    """Returns a whole number that a column can hold, or None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        return None
    return value


def _time(value: Any) -> str | None:
    """Returns a time in the form of the API, or None if the value is no time or names no offset from UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return None if moment.tzinfo is None else iso_time(moment)
    except (ValueError, OverflowError):
        return None
