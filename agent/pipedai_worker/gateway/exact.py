"""Makes anew what is sent in a run with rules, from what a message may have alone, and says exactly what it asks for.
So nothing else is sent than what the gate has seen and a person has approved (docs/approvals.md).
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from typing import Any

import rfc8785

from pipedai_worker.gateway import limits, messages
from pipedai_worker.gateway.exchange import Request
from pipedai_worker.values import is_deeper

_PLAIN_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)

# The API takes arguments of at most so many levels.
MOST_LEVELS = 62
# What MCP itself has in `_meta`. A server may do something by the rest.
_META = re.compile(r"progressToken|traceparent|io\.modelcontextprotocol/.*")
_PARAM, _MIRRORED = "mcp-param-", "x-mcp-header"
# The headers that MCP, HTTP and tracing need. None has a `_`, which servers by WSGI don't tell from a `-`.
_HEADERS = re.compile(r"accept|content-type|user-agent|last-event-id|traceparent|mcp-[a-z0-9-]+")


def with_known_headers(request: Request) -> Request:
    known = tuple(pair for pair in request.headers if _HEADERS.fullmatch(pair[0]))
    return replace(request, headers=known)


def anew(posted: list[dict[str, Any]], request: Request) -> bytes:
    """Return a body with the messages of a POST, made from their known members and parameters alone. Raises ValueError
    for a number that JSON does not have.
    """
    made = [_anew(message) for message in posted]
    return _text(made if request.body.lstrip()[:1] == b"[" else made[0])


def _anew(message: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "method", "params") if "method" in message else ("id", "result", "error")
    kept = {name: message[name] for name in names if name in message}
    params = kept.get("params")
    if messages.tool_of(message) is not None and isinstance(params, dict):
        kept["params"] = {name: params[name] for name in messages.OF_A_CALL if name in params}
    return {"jsonrpc": "2.0", **kept}


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def is_plain(posted: list[dict[str, Any]], request: Request) -> bool:
    """Tell whether the headers of a POST say nothing else than its messages, and no method is a call in capitals."""
    if not _PLAIN_TYPE.fullmatch(request.header("content-type") or ""):
        return False
    for message in posted:
        method, tool = message.get("method", ""), messages.tool_of(message)
        if tool is None and method.lower() == messages.TOOLS_CALL:
            return False
        # A server, or a proxy before it, may go by these headers of MCP 2026-07-28 instead of by the body.
        if request.has("mcp-method") and request.header("mcp-method") != method:
            return False
        if request.has("mcp-name") and tool is not None and request.header("mcp-name") != tool:
            return False
    return True


def may_mirror(schema: bytes) -> bool:
    """Tell whether a schema, in its canonical form, may name headers that repeat arguments."""
    return f'"{_MIRRORED}"'.encode() in schema


def mirrors(schema: Any) -> dict[str, tuple[str, ...]] | None:
    """Return the headers that repeat arguments by the schema of a tool (`x-mcp-header`, MCP 2026-07-28), in lower case,
    and where in the arguments each value is; None if there are too many. The schema must not have too many levels.
    """
    found: dict[str, tuple[str, ...]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    while waiting and len(found) <= limits.MOST_MIRRORS:
        path, one = waiting.pop()
        properties = one.get("properties") if isinstance(one, dict) else None
        header = one.get(_MIRRORED) if isinstance(one, dict) else None
        if path and isinstance(header, str):
            found[f"{_PARAM}{header.lower()}"] = path
        for name, inner in properties.items() if isinstance(properties, dict) else ():
            waiting.append(((*path, name), inner))
    return found if len(found) <= limits.MOST_MIRRORS else None


def repeats(request: Request, arguments: dict[str, Any], schema: bytes | None) -> bool:
    """Tell whether the headers that may repeat arguments of a call say the same as these. `schema` is the canonical
    form of the tool's; None if it is not known.
    """
    names = {name for name, _ in request.headers if name.startswith(_PARAM)}
    if not names:
        return True
    headers = mirrors(json.loads(schema)) if schema else None
    if headers is None or len(names) > limits.MOST_MIRRORS:
        return False
    for name in names:
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
    call = {"id": message["id"], "method": messages.TOOLS_CALL, "params": params}
    return _text({"jsonrpc": "2.0", **call})[:-2] + b',"arguments":' + arguments + b"}}"


def shows(shown: Any, value: Any) -> bool:
    """Tell whether JSON without secrets still has each member of a value, so that nothing is hidden from a person."""
    if isinstance(shown, dict) and isinstance(value, dict):
        return list(shown) == list(value) and shows([*shown.values()], [*value.values()])
    if isinstance(shown, list) and isinstance(value, list):
        return len(shown) == len(value) and all(map(shows, shown, value))
    return not isinstance(shown, (dict, list)) and not isinstance(value, (dict, list))


def canonical(value: Any, levels: int) -> bytes | None:
    """Return the RFC 8785 form of a JSON value; None if it has none, such as a number that not every program reads, or
    if the value has more levels than these.
    """
    try:
        return None if is_deeper(value, levels) else rfc8785.dumps(value)
    except ValueError:
        return None
