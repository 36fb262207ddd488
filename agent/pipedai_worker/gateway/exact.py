"""Says exactly what a message asks for, so that nothing else is sent than what a person has approved (SPEC §27)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import rfc8785

from pipedai_worker.gateway import messages
from pipedai_worker.gateway.exchange import Request

_PLAIN_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)


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


def only_approved(message: dict[str, Any], arguments: bytes) -> bytes:
    """Return a call with its arguments in the form that was approved, and without parameters that nobody has seen."""
    params = {"name": message["params"]["name"]}
    if "_meta" in message["params"]:
        params["_meta"] = message["params"]["_meta"]
    rest = json.dumps(
        {"jsonrpc": "2.0", "id": message["id"], "method": messages.TOOLS_CALL, "params": params}
    )
    return rest[:-2].encode() + b',"arguments":' + arguments + b"}}"


def hash_of(value: Any) -> str | None:
    text = canonical(value)
    return None if text is None else hashlib.sha256(text).hexdigest()


def canonical(value: Any) -> bytes | None:
    """Return the RFC 8785 form of a JSON value; None if it has none, such as a number that not every program reads."""
    try:
        return rfc8785.dumps(value)
    except (ValueError, RecursionError):
        return None
