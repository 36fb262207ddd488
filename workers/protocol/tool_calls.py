"""Reads what a worker reports about tool calls. Malformed values are dropped, and do not lose the report."""

import re
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

# A time in the form of the API, as most workers send it. It is returned as it is, because writing it anew takes ten
# times as long as reading it.
_IN_OUR_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

_COUNT = {"type": "integer", "minimum": 0, "maximum": _MOST}


@extend_schema_field(
    {
        "type": "object",
        "required": ["total", "effects", "unknown"],
        "properties": {"total": _COUNT, "effects": _COUNT, "unknown": _COUNT},
    }
)
class ToolCallsField(serializers.Field[Any, Any, Any, Any]):
    """The counts of a run's tool calls. Malformed counts become None and raise no error."""

    def to_internal_value(self, data: Any) -> ToolCalls | None:
        if not isinstance(data, dict):
            return None
        total, effects, unknown = (
            whole_count(data.get(name)) for name in ("total", "effects", "unknown")
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
    """The list of a run's first tool calls. Malformed calls are left out and raise no error."""

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        return list(islice(_calls(data if isinstance(data, list) else []), MAX_LISTED_CALLS))


def _calls(items: list[Any]) -> Iterator[dict[str, Any]]:
    for item in items:
        if not isinstance(item, dict):
            continue
        at, tool = time_of(item.get("at")), item.get("tool")
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
                "durationMs": whole_count(item.get("durationMs")),
                "outcome": outcome,
                "effect": effect,
            }


def _is_one(value: Any, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value in words


def whole_count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        return None
    return value


def time_of(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        if _IN_OUR_FORM.fullmatch(value):
            return value
        return None if moment.tzinfo is None else iso_time(moment)
    except (ValueError, OverflowError):
        return None
