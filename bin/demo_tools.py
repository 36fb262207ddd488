"""Serves the demo's MCP server on the loopback interface: one tool, which tells the time of this machine.

It speaks streamable HTTP, and needs nothing but the standard library, so that the demo works without internet.
"""

import json
import sys
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/mcp"
TOOL = "local_time"
_HOST = "127.0.0.1"
_VERSION = "2025-06-18"
_LARGEST = 1_000_000
_METHOD_NOT_FOUND, _INVALID_PARAMS = -32601, -32602
_TOOLS = [
    {
        "name": TOOL,
        "description": "Tell the local time of the machine on which PipedAI was started.",
        "inputSchema": {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True},
    }
]


def url_at(port: int) -> str:
    """Return the server's URL."""
    return f"http://{_HOST}:{port}{PATH}"


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of MCP clients."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != PATH or not 0 < length <= _LARGEST:
            self._send(400, {"error": "Nothing is served there, or not for such a body."})
            return
        try:
            message = json.loads(self.rfile.read(length))
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self._send(400, {"error": "The body is no JSON object."})
        elif "id" in message:
            self._send(200, {"jsonrpc": "2.0", "id": message["id"], **answer(message)})
        else:
            self._send(202, None)

    def do_GET(self) -> None:
        self._send(405, {"error": "There is no stream of events here."})

    do_DELETE = do_GET  # noqa: N815 - a session needs no end

    def _send(self, status: int, content: Any) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 400:
            # The connection is closed after the answer, because part of the request's body may not have been read.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: the demo shows what its run did."""


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """Return the `result`, or the `error`, that answers a JSON-RPC request."""
    asked, params = message.get("method"), message.get("params")
    params = params if isinstance(params, dict) else {}
    if asked == "initialize":
        return {
            "result": {
                "protocolVersion": params.get("protocolVersion") or _VERSION,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "demo", "version": "1"},
            }
        }
    if asked == "tools/list":
        return {"result": {"tools": _TOOLS}}
    if asked == "ping":
        return {"result": {}}
    if asked != "tools/call":
        return {"error": {"code": _METHOD_NOT_FOUND, "message": "Method not found"}}
    if params.get("name") != TOOL:
        return {"error": {"code": _INVALID_PARAMS, "message": "There is no such tool."}}
    text = f"It is {datetime.now().astimezone():%A, %H:%M}."
    return {"result": {"content": [{"type": "text", "text": text}], "isError": False}}


def main() -> None:
    """Serve until a signal ends the process. The port is the only argument."""
    with ThreadingHTTPServer((_HOST, int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
