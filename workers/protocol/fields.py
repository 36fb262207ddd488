"""The fields of workers' reports. Most forgive a wrong value, because refusing it would lose the whole report."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import (
    TextField,
    WholeNumberField,
    is_finite_number,
)
from pipedai.api.parsers import TOO_DEEP
from pipedai.api.renderers import compact_json, iso_time
from triggers.approval_rules import MAX_ARGUMENTS_BYTES
from triggers.runs.outcome import (
    CALL_EFFECTS,
    CALL_OUTCOMES,
    MAX_DENIED_TOOLS,
    MAX_LIMIT_KIND,
    MAX_LISTED_CALLS,
    Denials,
    Question,
    ToolCalls,
    UsageLimit,
)
from triggers.runs.retries import MAX_RETRY_AFTER_SECONDS

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


_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# What a worker can do beyond the first version of the protocol: it can stop a run to wait for an approval.
APPROVALS = "approvals"


class CutTextField(TextField):
    """A reported text. A too long one is cut, because refusing it would lose the whole report."""

    def __init__(self, *, cut_to: int, **kwargs: Any) -> None:
        self.cut_to = cut_to
        super().__init__(trim_whitespace=False, allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(data)[: self.cut_to]


class ReportedNumberField(WholeNumberField):
    """A reported whole number. One out of range becomes null, because refusing it would lose the whole report."""

    def __init__(self, *, least: int, most: int, **kwargs: Any) -> None:
        self.range = range(least, most + 1)
        super().__init__(required=False, allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> int | None:  # type: ignore[override]
        number = super().to_internal_value(data)
        return number if number in self.range else None


@extend_schema_field({"type": "number"})
class RetryAfterField(serializers.Field[Any, Any, Any, Any]):
    """Seconds, rounded up and limited to 24 hours. A value that is no number counts as null."""

    def to_internal_value(self, data: Any) -> int | None:
        if not is_finite_number(data):
            return None
        seconds: int = math.ceil(min(max(data, 0), MAX_RETRY_AFTER_SECONDS))
        return seconds


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "resetsAt": {"type": "string", "format": "date-time"},
            "kind": {"type": ["string", "null"], "maxLength": MAX_LIMIT_KIND},
        },
        "required": ["resetsAt"],
    }
)
class UsageLimitField(serializers.Field[Any, Any, Any, Any]):
    """The usage limit that ended a run. A malformed one counts as null, because refusing it would lose the report."""

    def to_internal_value(self, data: Any) -> UsageLimit | None:
        if not isinstance(data, dict) or not isinstance(data.get("resetsAt"), str):
            return None
        try:
            resets_at = parse_datetime(data["resetsAt"])
            if resets_at is None or resets_at.tzinfo is None:
                return None
            resets_at = resets_at.astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        kind = data.get("kind")
        if not isinstance(kind, str) or not kind.isprintable():
            kind = None
        return UsageLimit(resets_at, kind and kind[:MAX_LIMIT_KIND])


@extend_schema_field({})
class OutputField(serializers.Field[Any, Any, Any, Any]):
    """Any JSON value, or TOO_DEEP, by which the parser replaces a value that is nested too deep."""

    def to_internal_value(self, data: Any) -> Any:
        return data


@extend_schema_field(
    {
        "type": "object",
        "required": ["tool", "arguments", "argumentsHash", "toolSchemaHash"],
        "properties": {
            "tool": {"type": "string", "minLength": 1, "maxLength": MAX_TOOL_NAME},
            "arguments": {},
            "argumentsHash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "toolSchemaHash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        },
    }
)
class QuestionField(serializers.Field[Any, Any, Any, Any]):
    """The call of a tool for which a run waits. A malformed one is refused, because nobody could decide about it."""

    def to_internal_value(self, data: Any) -> Question:
        if not isinstance(data, dict) or data.get("arguments") is TOO_DEEP:
            raise serializers.ValidationError("Must be an object.")
        if "arguments" not in data:
            raise serializers.ValidationError("Must have the call's arguments.")
        arguments = compact_json(data["arguments"])
        if len(arguments.encode()) > MAX_ARGUMENTS_BYTES:
            raise serializers.ValidationError(
                f"The arguments must not be longer than {MAX_ARGUMENTS_BYTES // 1024} KiB."
            )
        tool = data.get("tool")
        if (
            not isinstance(tool, str)
            or not 0 < len(tool) <= MAX_TOOL_NAME
            or not tool.isprintable()
        ):
            raise serializers.ValidationError(
                "Must have the name of a tool, in printable characters."
            )
        hashes = [
            value
            for name in ("argumentsHash", "toolSchemaHash")
            if isinstance(value := data.get(name), str) and _SHA256.fullmatch(value)
        ]
        if len(hashes) < 2:
            raise serializers.ValidationError("Must have two hashes of 64 hexadecimal digits.")
        return Question(tool, arguments, *hashes)


@extend_schema_field(
    {
        "type": "object",
        "required": ["total", "tools"],
        "properties": {
            "total": {"type": "integer", "minimum": 0},
            "tools": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_DENIED_TOOLS},
        },
    }
)
class DenialsField(serializers.Field[Any, Any, Any, Any]):
    """How many calls a run was denied. Malformed denials become None and raise no error."""

    def to_internal_value(self, data: Any) -> Denials | None:
        total = whole_count(data.get("total")) if isinstance(data, dict) else None
        if total is None:
            return None
        named = data["tools"] if isinstance(data.get("tools"), list) else []
        tools = [each[:MAX_TOOL_NAME] for each in named if isinstance(each, str) and each]
        return Denials(total, tools[:MAX_DENIED_TOOLS])


@extend_schema_field({"type": "array", "items": {"type": "string"}, "example": [APPROVALS]})
class FeaturesField(serializers.Field[Any, Any, Any, Any]):
    """What a worker can do. What is no list counts as an empty one, because newer workers may know more."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, default=None)

    def to_internal_value(self, data: Any) -> list[Any]:
        return data if isinstance(data, list) else []


class ClaimIdField(TextField):
    """The word by which a worker knows its claim of a run again; null for none."""

    def __init__(self) -> None:
        super().__init__(
            max_length=64,
            trim_whitespace=False,
            allow_blank=True,
            allow_null=True,
            default=None,
        )
