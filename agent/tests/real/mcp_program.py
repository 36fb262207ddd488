"""A real MCP server (PyPI `mcp`), run by a Python that has that library; `mcp_server.py` starts it.

    python mcp_program.py FD LOG

FD is a socket that listens. A URL is `/KEY/MODE/mcp` (streamable HTTP) or `/KEY/MODE/sse`. The key is a name that a
test chooses, and the server wants the `Authorization` header that belongs to it. The mode says how the server
misbehaves: `plain` does not, and `_MODES` has the others. LOG gets a line of JSON for each request as soon as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from uvicorn.protocols.http.h11_impl import H11Protocol

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOOLS, _TOOL_BYTES = 200, 50_000
_READS = ToolAnnotations(read_only_hint=True)
_REPEATS = ToolAnnotations(idempotent_hint=True)


def secret_of(key: str) -> str:
    """Return the value of the `Authorization` header that the server wants for this key."""
    return f"Bearer {sha256(key.encode()).hexdigest()}"


def make_server() -> MCPServer:
    """Return a server whose tools have every kind of annotation."""
    server = MCPServer("real", instructions="These are the server's instructions.")

    @server.tool(annotations=_READS)
    def echo(text: str) -> str:
        """Return the text."""
        return f"echo:{text}"

    @server.tool(annotations=_REPEATS)
    def fail(text: str = "") -> str:
        """Fail always."""
        raise ToolError(f"The tool failed on purpose. {text}")

    @server.tool(annotations=_READS)
    async def nap(seconds: float) -> str:
        """Sleep for so many seconds."""
        await asyncio.sleep(seconds)
        return f"slept {seconds:g} s"

    @server.tool(annotations=_READS)
    def big(kib: int) -> str:
        """Return a text of so many KiB."""
        return "y" * 1024 * kib

    @server.tool(annotations=_READS)
    def leak(context: Context) -> str:
        """Return the caller's own header, as a careless server does."""
        return f"Your header was {(context.headers or {}).get('authorization')}."

    @server.tool(annotations=_REPEATS)
    def put(text: str) -> str:
        """Set something, which may be done twice."""
        return f"put {text}"

    @server.tool()
    async def write(text: str, seconds: float = 0) -> str:
        """Do something that must not be done twice, and answer so many seconds later."""
        await asyncio.sleep(seconds)
        return f"wrote {text}"

    @server.resource("note://secret")
    def note() -> str:
        """Read a note that nobody asked for."""
        return "The note's text must reach no model."

    @server.prompt()
    def advice(text: str = "") -> str:
        """Give advice that nobody asked for."""
        return f"The prompt's text must reach no model. {text}"

    return server


def make_crowded() -> MCPServer:
    """Return a server whose list of tools is 10 MB long."""
    server = MCPServer("crowded")
    for number in range(_TOOLS):

        def tool(text: str) -> str:
            return text

        server.add_tool(tool, name=f"tool{number}", description="z" * _TOOL_BYTES)
    return server


@dataclass
class Exchange:
    """One HTTP request, whose body has been read, and the way to answer it."""

    scope: Scope
    body: bytes
    send: Send
    transport: asyncio.Transport

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message; empty if there is none."""
        try:
            message = json.loads(self.body)
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    def concerns(self, methods: str) -> bool:
        """Tell whether a mode's value means this request: it names its method, or none. `-` stands for `/`."""
        return methods in {"", str(self.message.get("method")).replace("/", "-")}

    async def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        """Answer with this body."""
        named = {"content-type": kind, **headers}
        encoded = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in named.items()
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})

    async def flood(self, kind: str, piece: bytes) -> None:
        """Answer with this piece for ever."""
        encoded = [(b"content-type", kind.encode())]
        await self.send({"type": "http.response.start", "status": 200, "headers": encoded})
        while not self.transport.is_closing():
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)

    def reset(self) -> None:
        """Reset the connection."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


async def _status(exchange: Exchange, value: str) -> bool:
    headers = {"www_authenticate": "Bearer"} if value == "401" else {}
    if value.startswith("3"):
        headers["location"] = "/elsewhere/plain/mcp"
    await exchange.answer(int(value), "application/json", b'{"error": "scripted"}', **headers)
    return True


async def _delay(exchange: Exchange, value: str) -> bool:
    opens_sse = exchange.scope["path"].endswith("/sse")
    if opens_sse or exchange.message.get("method") == "initialize":
        await asyncio.sleep(float(value))
    return False


async def _slow_tools(exchange: Exchange, value: str) -> bool:
    if exchange.message.get("method") == "tools/list":
        await asyncio.sleep(float(value))
    return False


async def _html(exchange: Exchange, value: str) -> bool:
    await exchange.answer(200, "text/html", b"<!doctype html><title>Hello</title>")
    return True


async def _words(exchange: Exchange, value: str) -> bool:
    await exchange.answer(200, "application/json", b'{"hello": "world"}')
    return True


async def _status_call(exchange: Exchange, value: str) -> bool:
    return exchange.concerns("tools-call") and await _status(exchange, value)


async def _html_call(exchange: Exchange, value: str) -> bool:
    return exchange.concerns("tools-call") and await _html(exchange, value)


async def _version(exchange: Exchange, value: str) -> bool:
    if exchange.message.get("method") != "initialize":
        return False
    result = {
        "protocolVersion": value or "1999-01-01",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "old", "version": "1"},
    }
    answer = {"jsonrpc": "2.0", "id": exchange.message.get("id"), "result": result}
    await exchange.answer(200, "application/json", json.dumps(answer).encode())
    return True


async def _elsewhere(exchange: Exchange, value: str) -> bool:
    if not exchange.scope["path"].endswith("/sse"):
        return False
    endpoint = b"event: endpoint\ndata: http://192.0.2.1/messages\n\n"
    await exchange.answer(200, "text/event-stream", endpoint)
    return True


async def _bomb(exchange: Exchange, value: str) -> bool:
    packed = gzip.compress(bytes(16 * 1024 * 1024))
    await exchange.answer(200, "application/json", packed * 64, content_encoding="gzip")
    return True


async def _endless(exchange: Exchange, value: str) -> bool:
    if value == "json":
        await exchange.flood("application/json", b" " * 65536)
    else:
        await exchange.flood("text/event-stream", b": nothing\n\n" * 1000)
    return True


async def _stall(exchange: Exchange, value: str) -> bool:
    if exchange.concerns(value):
        await asyncio.sleep(3600)
    return False


async def _reset(exchange: Exchange, value: str) -> bool:
    if exchange.concerns(value):
        exchange.reset()
        return True
    return False


# Each name is followed by `-VALUE` where it says so, and returns whether it has answered.
_MODES: dict[str, Callable[[Exchange, str], Awaitable[bool]]] = {
    "status": _status,  # status-503: every request is answered so
    "delay": _delay,  # delay-40: the connection is answered after 40 s
    "slowtools": _slow_tools,  # slowtools-40: the list of tools takes 40 s
    "statuscall": _status_call,  # statuscall-503: only tool calls are answered so
    "html": _html,  # a web page
    "htmlcall": _html_call,  # a web page for each tool call
    "words": _words,  # JSON that is no JSON-RPC
    "version": _version,  # version-1999-01-01: a protocol version that nobody asked for
    "elsewhere": _elsewhere,  # for SSE: messages are to go to another origin
    "bomb": _bomb,  # 1 GiB, packed into 1 MB
    "endless": _endless,  # endless-sse, endless-json: an answer without an end
    "stall": _stall,  # no answer, ever; stall-tools-call: none to that method
    "reset": _reset,  # a reset connection; reset-tools-call: for that method
}


class Front:
    """Logs every request, misbehaves as the mode says, and hands what is left to the real server."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", buffering=1)
        self._plain, self._crowded = make_server(), make_crowded()
        self._apps: dict[tuple[bool, bool], App] = {
            (crowded, sse): server.sse_app() if sse else server.streamable_http_app()
            for crowded, server in ((False, self._plain), (True, self._crowded))
            for sse in (False, True)
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run what the servers need in the background."""
        async with self._plain.session_manager.run(), self._crowded.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = await _read(receive) if scope["method"] == "POST" else b""
        exchange = Exchange(scope, body, send, _Protocol.transports[scope["client"]])
        _, key, mode, *rest = [*scope["path"].split("/", 3), "", ""][:4]
        authorized = self._note(exchange, key, rest[0])
        name, _, value = mode.partition("-")
        if name in _MODES and await _MODES[name](exchange, value):
            return
        if not authorized:
            await exchange.answer(401, "application/json", b"{}", www_authenticate="Bearer")
            return
        app = self._apps[name == "crowded", rest[0].startswith(("sse", "messages"))]
        await app({**scope, "root_path": f"/{key}/{mode}"}, _again(body, receive), send)

    def _note(self, exchange: Exchange, key: str, rest: str) -> bool:
        headers = {
            name.decode().lower(): value.decode() for name, value in exchange.scope["headers"]
        }
        authorized = headers.get("authorization") == secret_of(key)
        message = exchange.message
        params = message.get("params") or {}
        seen = {
            "at": time.time(),
            "key": key,
            "method": exchange.scope["method"],
            "path": rest,
            "authorized": authorized,
            "headers": headers,
            "rpc": message.get("method"),
            "name": params.get("name"),
            "arguments": params.get("arguments"),
        }
        self._log.write(json.dumps(seen) + "\n")
        return authorized


class _Protocol(H11Protocol):
    """Lets a mode reach the connection of its request."""

    transports: dict[tuple[str, int], asyncio.Transport] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.transports[transport.get_extra_info("peername")] = transport


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with the body that was read already."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> dict[str, Any]:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def serve(listener: socket.socket, log: Path) -> None:
    """Serve until SIGTERM."""
    front = Front(log)
    config = uvicorn.Config(
        front, http=_Protocol, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    async with front.running():
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])))
