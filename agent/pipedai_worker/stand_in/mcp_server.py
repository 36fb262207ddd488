"""A small MCP server over streamable HTTP: the demo, the conformance kit, the benchmark and the tests serve it."""

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

VERSION = "2025-06-18"
LARGEST_BODY = 1_000_000
METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602


class Tool(NamedTuple):
    shown: dict[str, Any]
    call: Callable[[dict[str, Any]], str]


def answer(message: dict[str, Any], tools: Mapping[str, Tool]) -> dict[str, Any]:
    asked, params = message.get("method"), message.get("params")
    params = params if isinstance(params, dict) else {}
    if asked == "initialize":
        return _result(
            protocolVersion=params.get("protocolVersion") or VERSION,
            capabilities={"tools": {}},
            serverInfo={"name": "small", "version": "1"},
        )
    if asked == "tools/list":
        return _result(tools=[tool.shown for tool in tools.values()])
    if asked == "ping":
        return _result()
    if asked != "tools/call":
        return {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
    tool = tools.get(params.get("name") or "")
    if tool is None:
        return {"error": {"code": INVALID_PARAMS, "message": "There is no such tool."}}
    text = tool.call(params.get("arguments") or {})
    return _result(content=[{"type": "text", "text": text}], isError=False)


def _result(**fields: Any) -> dict[str, Any]:
    return {"result": fields}


class McpHandler(BaseHTTPRequestHandler):
    """Answers MCP clients. It has no sessions, and no stream of events that a client opens."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    served_at = "/mcp"
    tools: Mapping[str, Tool] = {}

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != self.served_at or not 0 < length <= LARGEST_BODY:
            self._refuse("Nothing is served there, or not for such a body.")
            return
        try:
            message = json.loads(self.rfile.read(length))
        except ValueError:
            message = None
        if isinstance(message, dict):
            self.take(message)
        else:
            self._refuse("The body is no JSON object.")

    def do_GET(self) -> None:
        self.json({"error": "There is no stream of events here."}, 405)

    do_DELETE = do_GET  # noqa: N815 - a session needs no end

    def take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answered = answer(message, self.tools)
            self.reply({"jsonrpc": "2.0", "id": message["id"], **answered})
        else:
            self.whole(202)

    def reply(self, answered: dict[str, Any]) -> None:
        self.json(answered)

    def whole(self, status: int, body: bytes = b"", kind: str = "", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.whole(status, json.dumps(value).encode(), "application/json", **headers)

    def _refuse(self, why: str) -> None:
        # The connection is closed after the answer, because part of the request's body may not have been read.
        self.json({"error": why}, 400, Connection="close")

    def log_message(self, *_: object) -> None:
        pass
