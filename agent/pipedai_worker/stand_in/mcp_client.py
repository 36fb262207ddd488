"""Speaks with the run's MCP server as claude does, with the standard library alone and without a proxy."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

PROTOCOL_VERSION = "2025-06-18"
CONNECT_SECONDS = 30.0
MOST_PAGES = 100


class McpError(Exception):
    """The server can't be used, or it answered a request with an error. The text says why."""


class McpClient:
    def __init__(self, server: Mapping[str, Any], connect_seconds: float = CONNECT_SECONDS) -> None:
        self._url = str(server.get("url"))
        self._headers = {str(k): str(v) for k, v in (server.get("headers") or {}).items()}
        self._connect_seconds = connect_seconds
        self._call_seconds = float(server.get("timeout") or 300_000) / 1000
        self._ids = itertools.count(1)
        self.server_name = ""
        self.tools: list[dict[str, Any]] = []

    def connect(self) -> None:
        limit = self._connect_seconds
        client = {"name": "stand-in", "version": "0"}
        offered = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        agreed = self._ask("initialize", offered, limit)
        self.server_name = str((agreed.get("serverInfo") or {}).get("name") or "")
        self._headers["MCP-Protocol-Version"] = str(
            agreed.get("protocolVersion") or PROTOCOL_VERSION
        )
        self._send({"method": "notifications/initialized"}, limit)
        page: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            listed = self._ask("tools/list", page, limit)
            self.tools += [tool for tool in listed.get("tools") or () if isinstance(tool, dict)]
            if not listed.get("nextCursor"):
                return
            page = {"cursor": listed["nextCursor"]}

    def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool and return its result: `content` and `isError`, perhaps more. Raises McpError."""
        return self._ask(
            "tools/call", {"name": tool, "arguments": dict(arguments)}, self._call_seconds
        )

    def close(self) -> None:
        if "Mcp-Session-Id" in self._headers:
            with contextlib.suppress(McpError):
                self._request("DELETE", None, 2.0)

    def _ask(self, method: str, params: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        for answer in self._send(message, seconds):
            if answer.get("id") != number:
                continue
            if "error" in answer:
                raise McpError(f"{method}: {(answer['error'] or {}).get('message')}")
            result = answer.get("result")
            return result if isinstance(result, dict) else {}
        raise McpError(f"{method}: there was no answer")

    def _send(self, message: Mapping[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """Send a message at once, and return the messages that answer it as they come."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        answer = self._request("POST", body, seconds)
        session = answer.headers.get("Mcp-Session-Id")
        if session:
            self._headers["Mcp-Session-Id"] = session
        if answer.headers.get_content_type() == "text/event-stream":
            return _events(answer)
        with _troubles():
            text = answer.read()
            return iter([json.loads(text)] if text.strip() else [])

    def _request(self, method: str, body: bytes | None, seconds: float) -> http.client.HTTPResponse:
        headers = {
            "Accept": "application/json, text/event-stream",
            "Connection": "close",
            **self._headers,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        with _troubles():
            url = urlsplit(self._url)
            if url.scheme not in {"http", "https"} or not url.hostname:
                raise ValueError(f"not a URL of HTTP: {self._url}")
            https = url.scheme == "https"
            connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
            connection = connect(url.hostname, url.port, timeout=seconds)
            target = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
            try:
                connection.request(method, target, body, headers)
                answer = connection.getresponse()
            finally:
                # The socket is closed too, because the open answer would keep the connection open.
                if connection.sock is not None:
                    connection.sock.close()
            if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                answer.close()
                raise McpError(f"HTTP Error {answer.status}: {answer.reason}")
            return answer


@contextlib.contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise McpError(str(error)) from None


def _events(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream of events as they come."""
    data: list[str] = []
    with _troubles(), answer:
        for line in answer:
            name, _, value = line.decode().rstrip("\r\n").partition(":")
            if name == "data":
                data.append(value[value.startswith(" ") :])
            elif not name and data:
                message = json.loads("\n".join(data))
                data = []
                if isinstance(message, dict):
                    yield message
