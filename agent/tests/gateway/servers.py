"""An MCP server on the loopback interface, which behaves well unless a test tells it otherwise."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from pipedai_worker.stand_in.mcp_server import McpHandler, answer

SESSION = "Mcp-Session-Id"
TOKEN = "Bearer planted-0123456789abcdef"
TOOLS: list[dict[str, Any]] = [
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "set", "inputSchema": {"type": "object"}, "annotations": {"idempotentHint": True}},
    {"name": "send", "inputSchema": {"type": "object"}},
]


class Exchange(McpHandler):
    """One request, and ways to answer it."""

    server: McpServer
    body: bytes
    message: Any

    def _take(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.message = None
        with contextlib.suppress(ValueError):
            self.message = json.loads(self.body)
        self.server.seen.append((self.command, self.path, dict(self.headers), self.message))
        method = self.message.get("method") if isinstance(self.message, dict) else None
        way = self.server.ways.get(method or self.command) or self.server.ways.get("*")
        with contextlib.suppress(OSError):
            (way or self.server.behave)(self)

    do_GET = do_POST = do_DELETE = _take  # noqa: N815

    def result(self, result: Any, **headers: str) -> None:
        self.json({"jsonrpc": "2.0", "id": self.message["id"], "result": result}, 200, **headers)

    def events(self, **headers: str) -> None:
        """Begin a stream of events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, value: Any, before: str = "") -> None:
        data = value if isinstance(value, str) else json.dumps(value)
        self.chunk(f"{before}data: {data}\n\n".encode())

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()

    def until_gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True
        self.server.left.set()


class McpServer(ThreadingHTTPServer):
    """`ways` replaces how a JSON-RPC method, an HTTP method, or everything (`*`) is answered."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *, as_events: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.as_events = as_events
        self.tools = [TOOLS]
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.ways: dict[str, Callable[[Exchange], None]] = {}
        self.version = "2025-06-18"
        self.streams: dict[str, queue.Queue[bytes | None]] = {}
        # Set once a client has gone away from `until_gone()`.
        self.left = threading.Event()
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"
        self.url = f"{self.origin}/mcp?key=planted-in-query"

    def behave(self, exchange: Exchange) -> None:
        """Answer as a good server does."""
        if exchange.headers.get("Authorization") != TOKEN:
            exchange.json({"error": "who are you?"}, 401, WWW_Authenticate="Bearer")
        elif exchange.command == "GET":
            self._stream(exchange)
        elif exchange.command == "DELETE":
            exchange.whole(200)
        elif "id" not in exchange.message:
            exchange.whole(202)
        else:
            headers = {SESSION.replace("-", "_"): "session-1"}
            self._answer(exchange, self.result_of(exchange.message), headers)

    def _answer(self, exchange: Exchange, result: Any, headers: dict[str, str]) -> None:
        answer = {"jsonrpc": "2.0", "id": exchange.message["id"], **result}
        if self.as_events:
            exchange.events(**headers)
            exchange.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
            exchange.event(answer)
            exchange.end()
        else:
            exchange.json(answer, 200, **headers)

    def result_of(self, message: Any) -> dict[str, Any]:
        method, params = message["method"], message.get("params") or {}
        if method == "initialize":
            capabilities: dict[str, Any] = {"tools": {"listChanged": True}}
            info = {"name": "test", "version": "1"}
            return _result(protocolVersion=self.version, capabilities=capabilities, serverInfo=info)
        if method == "tools/list":
            page = int(params.get("cursor", "0"))
            last = page == len(self.tools) - 1
            more = {} if last else {"nextCursor": str(page + 1)}
            return _result(tools=self.tools[page], **more)
        if method == "tools/call":
            failed = bool(params.get("arguments", {}).get("fail"))
            return _result(content=[{"type": "text", "text": "done"}], isError=failed)
        return answer(message, {})

    def _stream(self, exchange: Exchange) -> None:
        pieces: queue.Queue[bytes | None] = queue.Queue()
        self.streams["GET"] = pieces
        exchange.events()
        while (piece := pieces.get()) is not None:
            exchange.chunk(piece)
        exchange.end()

    def methods(self) -> list[str]:
        """Return what was asked, by JSON-RPC method or else HTTP method."""
        return [
            message["method"] if isinstance(message, dict) and "method" in message else command
            for command, _, _, message in self.seen
        ]

    def lower(self, which: int) -> dict[str, str]:
        """Return the headers of a request that was seen, by names in lower case."""
        return {name.lower(): value for name, value in self.seen[which][2].items()}

    def handle_error(self, *_: Any) -> None:
        """Print nothing, as broken connections are what is tested."""


def _result(**fields: Any) -> dict[str, Any]:
    return {"result": fields}


@contextmanager
def serving(server: McpServer) -> Iterator[McpServer]:
    """Serve in this context."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for pieces in server.streams.values():
            pieces.put(None)
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve bytes instead of HTTP: `talk` gets each connection, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
