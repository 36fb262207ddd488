"""Answers as an MCP server without tools (streamable HTTP), for workers that check the server before a run."""

from __future__ import annotations

from typing import Any

PATH = "/mcp"
METHOD_NOT_FOUND = -32601


def answer(method: str, message: dict[str, Any]) -> tuple[int, Any]:
    """Return the status and the JSON that answer one HTTP request, whose body was `message`."""
    if method != "POST":
        return 405, {"error": "There is no stream of events here."}
    if "id" not in message:
        return 202, ""
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    asked, params = message.get("method"), message.get("params")
    if asked == "initialize":
        version = params.get("protocolVersion") if isinstance(params, dict) else None
        reply["result"] = {
            "protocolVersion": version or "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }
    elif asked == "tools/list":
        reply["result"] = {"tools": []}
    elif asked == "ping":
        reply["result"] = {}
    else:
        reply["error"] = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    return 200, reply
