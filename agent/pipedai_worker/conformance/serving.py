"""Serves the fake API on a real network port. It can answer slowly and cut all connections."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from pipedai_worker.conformance import requests
from pipedai_worker.conformance.fake_api import DROP, FakeApi
from pipedai_worker.stand_in.mcp_server import McpHandler, Tool

LOOK = {
    "name": "look",
    "inputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": True},
}


class Service:
    """Serves the API on a port of this machine. The port stays reserved while the service is stopped."""

    def __init__(self, api: FakeApi, port: int = 0) -> None:
        self._api = api
        # This socket does not listen. It keeps the port while the API is stopped, when connections are refused.
        self._reserved = socket.socket()
        _share_port(self._reserved)
        self._reserved.bind(("127.0.0.1", port))
        self._port = self._reserved.getsockname()[1]
        self._server: _Server | None = None
        api.mcp_url = self.url + McpHandler.served_at

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        with self._api.lock:
            self._api.closing = False
        self._server = _Server(self._api, self._port)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Cut every connection and refuse new ones, until `start()` is called again."""
        if self._server is None:
            return
        server, self._server = self._server, None
        with self._api.lock:
            self._api.closing = True
            self._api.stops += 1
            self._api.lock.notify_all()
        server.shutdown()
        server.server_close()
        server.cut_connections()

    def close(self) -> None:
        self.stop()
        self._reserved.close()


@contextmanager
def serving(api: FakeApi, port: int = 0) -> Iterator[str]:
    service = Service(api, port)
    service.start()
    try:
        yield service.url
    finally:
        service.close()


def _share_port(shared: socket.socket) -> None:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        shared.setsockopt(socket.SOL_SOCKET, option, 1)


class Handler(McpHandler):
    """Answers the requests to a fake API, which is its server's `api`, and those to the MCP server beside it."""

    server: Any

    def do_GET(self) -> None:  # noqa: N802
        if self.path.startswith(self.served_at):
            super().do_GET()
        else:
            self._serve({})

    do_DELETE = do_GET  # noqa: N815

    def do_POST(self) -> None:  # noqa: N802
        data = self._body()
        body = requests.parse(data)
        if self.path.startswith(self.served_at):
            self._serve_mcp(body or {})
        elif data and not requests.is_json(self.headers.get("Content-Type")):
            self._refuse_call(
                415, "unsupported_media_type", "The Content-Type is not application/json."
            )
        elif body is None:
            self._refuse_call(400, "malformed_body", "The body is not a JSON object.")
        else:
            self._serve(body)

    def _serve_mcp(self, message: dict[str, Any]) -> None:
        admitted = self.server.api.admits(self.path, self.headers, message)
        if not admitted:
            self.json({"error": "These are not the headers."}, 401, WWW_Authenticate="Bearer")
            return
        # The tool of a run's own server tells a secret, which the worker must keep to itself.
        tool = Tool(LOOK, lambda _: str(self.headers.get("Authorization")))
        self.tools = self.server.api.tools if admitted is True else {"look": tool}
        self.take(message)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        # A chunked body may end with trailer fields, up to an empty line. They are read and ignored.
        while self.rfile.readline().strip():
            pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        ahead = self.server.api.clock_ahead.total_seconds()
        return super().date_time_string((timestamp or time.time()) + ahead)

    def _refuse_call(self, status: int, code: str, sentence: str) -> None:
        _, answer = self.server.api.refuse(status, code, sentence)
        self._send(status, answer, {})

    def _serve(self, body: dict[str, Any]) -> None:
        answer = self.server.api.answer(self.command, self.path, self.headers, body)
        if answer == DROP:
            self.close_connection = True
            return
        time.sleep(self.server.api.latency)
        self._send(*answer)

    def _send(self, status: int, content: Any, headers: dict[str, str]) -> None:
        is_json = not isinstance(content, str)
        data = b"" if status == 204 else (json.dumps(content) if is_json else content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "text/html")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        # If the fake API has a latency, the answer is sent in two halves, as a slow network might deliver it.
        latency = self.server.api.latency
        half = len(data) // 2 if latency else len(data)
        self.wfile.write(data[:half])
        time.sleep(latency)
        self.wfile.write(data[half:])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: FakeApi, port: int) -> None:
        self.api = api
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self) -> None:
        _share_port(self.socket)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Print nothing about a broken connection, because killing a worker breaks its connections."""
