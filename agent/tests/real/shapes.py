"""Compares what two programs told of the same scenario: the kinds of their events, their keys and JSON types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Event = dict[str, Any]

# What is below these is up to the model, the tool or the caller.
_FREE = {
    "message.content[].content",
    "message.content[].input",
    "permission_denials[].tool_input",
    "structured_output",
    "tool_use_result.structuredContent",
}
# The keys of these are names of models.
_BY_MODEL = {"modelUsage", "model_usage_since_last_result"}
_JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}


def kind_of(event: Event) -> str:
    """Return an event's type and subtype."""
    return "/".join(str(event[key]) for key in ("type", "subtype") if event.get(key))


def order_of(events: Sequence[Event], *, without: frozenset[str]) -> list[str]:
    """Return the kinds of events in order, without some, and each that repeats at once a single time."""
    kinds = [kind for kind in map(kind_of, events) if kind not in without]
    return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]


def shapes_of(events: Sequence[Event]) -> dict[str, set[str]]:
    """Return for each kind of event what its values look like: `PATH TYPE`."""
    shapes: dict[str, set[str]] = {}
    for event in events:
        shapes.setdefault(kind_of(event), set()).update(_lines(event, ""))
    return shapes


def _lines(value: Any, path: str) -> Iterator[str]:
    if path in _FREE:
        yield f"{path} anything"
    elif isinstance(value, dict):
        yield f"{path} object"
        for key, each in value.items():
            name = "*" if path in _BY_MODEL else key
            yield from _lines(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        yield f"{path} array"
        for each in value:
            yield from _lines(each, f"{path}[]")
    else:
        yield f"{path} {_JSON_TYPES[type(value)]}"
