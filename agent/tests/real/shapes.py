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
# The model's answers tell of the limit at any time, and claude passes it on then.
_AT_ANY_TIME = frozenset({"rate_limit_event"})
# What the stand-in does not tell: the names of what it does not have, a socket that runs never use, and what a server
# says of itself to clients of the newest protocol.
_NOT_TOLD = (
    "agents[]",
    "capabilities[]",
    "messaging_socket_path",
    "plugins[]",
    "skills[]",
    "slash_commands[]",
    "terminal_slash_commands[]",
    "tool_use_result._meta",
)
_JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}


def kind_of(event: Event) -> str:
    """Return an event's type and subtype."""
    return "/".join(str(event[key]) for key in ("type", "subtype") if event.get(key))


def _order_of(events: Sequence[Event], *, without: frozenset[str]) -> list[str]:
    """Return the kinds of events in order, without some, and each that repeats at once a single time."""
    kinds = [kind for kind in map(kind_of, events) if kind not in without]
    return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]


def _shapes_of(events: Sequence[Event]) -> dict[str, set[str]]:
    """Return for each kind of event what its values look like: `PATH TYPE`."""
    shapes: dict[str, set[str]] = {}
    for event in events:
        shapes.setdefault(kind_of(event), set()).update(_lines(event, ""))
    return shapes


def differences(name: str, real: Sequence[Event], played: Sequence[Event]) -> list[str]:
    """Return a line for each thing that only the real claude told, or only the stand-in, which played the same."""
    orders = [_order_of(events, without=_AT_ANY_TIME) for events in (real, played)]
    found = [] if orders[0] == orders[1] else [f"{name}: order: {orders[0]} != {orders[1]}"]
    shapes = _shapes_of(real), _shapes_of(played)
    for kind in sorted(shapes[0].keys() & shapes[1].keys()):
        missing = shapes[0][kind] - shapes[1][kind]
        found += [
            f"{name}: {kind}: only the real one has {line}"
            for line in sorted(missing)
            if not line.startswith(_NOT_TOLD)
        ]
        more = shapes[1][kind] - shapes[0][kind]
        found += [f"{name}: {kind}: only the stand-in has {line}" for line in sorted(more)]
    return found


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
