"""Says exactly what a message asks for, so that nothing else is sent than what a person has approved (SPEC §27)."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from typing import Any

import rfc8785

from pipedai_worker.gateway import messages
from pipedai_worker.gateway.exchange import Request

_PLAIN_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)

# The API takes arguments of at most so many levels.
MOST_LEVELS = 62
# What MCP itself has in `_meta`. A server may do something by the rest.
_META = re.compile(r"progressToken|traceparent|io\.modelcontextprotocol/.*")
_PARAM = "mcp-param-"


def is_plain(posted: list[dict[str, Any]], request: Request) -> bool:
    """Tell whether a lax server would find the same calls in a POST as the gate does."""
    kind = request.header("content-type")
    if kind is None or not _PLAIN_TYPE.fullmatch(kind) or request.has("content-encoding"):
        return False
    for message in posted:
        method, tool = message.get("method", ""), messages.tool_of(message)
        if tool is None and method.strip().casefold() == messages.TOOLS_CALL:
            return False
        # A server, or a proxy before it, may go by these headers of MCP 2026-07-28 instead of by the body.
        if request.has("mcp-method") and request.header("mcp-method") != method:
            return False
        if request.has("mcp-name") and tool is not None and request.header("mcp-name") != tool:
            return False
    return True


def mirrors(schema: Any, path: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return the headers that repeat arguments by the schema of a tool (`x-mcp-header`, MCP 2026-07-28), in lower case,
    and where in the arguments each value is.
    """
    found: dict[str, tuple[str, ...]] = {}
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        header = inner.get("x-mcp-header") if isinstance(inner, dict) else None
        if isinstance(header, str):
            found[f"{_PARAM}{header.lower()}"] = (*path, name)
        found |= mirrors(inner, (*path, name))
    return found


def repeats(
    request: Request, arguments: dict[str, Any], headers: dict[str, tuple[str, ...]]
) -> bool:
    """Tell whether the headers that may repeat arguments of a call say the same as these."""
    for name in {name for name, _ in request.headers if name.startswith(_PARAM)}:
        value: Any = arguments if name in headers else None
        for step in headers.get(name, ()):
            value = value.get(step) if isinstance(value, dict) else None
        text = value if isinstance(value, str) else json.dumps(value)
        as_base64 = f"=?base64?{b64encode(text.encode()).decode()}?="
        if value is None or request.header(name) not in {text, as_base64}:
            return False
    return True


def only_approved(message: dict[str, Any], arguments: bytes) -> bytes:
    """Return a call with its arguments in the form that was approved, and without parameters that nobody has seen."""
    params = {"name": message["params"]["name"]}
    meta = message["params"].get("_meta")
    if isinstance(meta, dict):
        params["_meta"] = {name: value for name, value in meta.items() if _META.fullmatch(name)}
    rest = json.dumps(
        {"jsonrpc": "2.0", "id": message["id"], "method": messages.TOOLS_CALL, "params": params}
    )
    return rest[:-2].encode() + b',"arguments":' + arguments + b"}}"


def shows(shown: Any, value: Any, levels: int = MOST_LEVELS) -> bool:
    """Tell whether JSON without secrets still has each member of a value, so that nothing is hidden from a person."""
    if isinstance(shown, dict) and isinstance(value, dict):
        return list(shown) == list(value) and shows([*shown.values()], [*value.values()], levels)
    if isinstance(shown, list) and isinstance(value, list):
        pairs = zip(shown, value)
        return (
            levels > 0
            and len(shown) == len(value)
            and all(shows(one, other, levels - 1) for one, other in pairs)
        )
    return not isinstance(shown, (dict, list)) and not isinstance(value, (dict, list))


def hash_of(value: Any) -> str | None:
    text = canonical(value)
    return None if text is None else hashlib.sha256(text).hexdigest()


def canonical(value: Any) -> bytes | None:
    """Return the RFC 8785 form of a JSON value; None if it has none, such as a number that not every program reads."""
    try:
        return rfc8785.dumps(value)
    except (ValueError, RecursionError):
        return None
