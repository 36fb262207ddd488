"""A real MCP server (PyPI `mcp`); `mcp_server.py` starts it.

    python -m tests.real.mcp_program FD LOG

FD is a socket that listens. A URL is `/KEY/MODE/mcp` (streamable HTTP) or `/KEY/MODE/sse` (the deprecated HTTP+SSE,
which the worker refuses). The key is a name that a test chooses, and the server wants the `Authorization` header that
belongs to it. The mode says how the server misbehaves: `plain` does not, and `mcp_modes.py` has the others. LOG gets a
line of JSON for each request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from uvicorn.protocols.http.h11_impl import H11Protocol

from .mcp_modes import MODES, Exchange, Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOOLS, _TOOL_BYTES = 10, 1_000_000
_READS = ToolAnnotations(read_only_hint=True)
_REPEATS = ToolAnnotations(idempotent_hint=True)


def secret_of(key: str) -> str:
    """Return the value of the `Authorization` header that the server wants for this key."""
    return f"Bearer {sha256(key.encode()).hexdigest()}"


def headlines(file: str) -> str:
    """Return what a file has at present."""
    return Path(file).read_text()


def make_server() -> MCPServer:
    """Return a server whose tools have every kind of annotation."""
    server = MCPServer("real", instructions="These are the server's instructions.")
    server.add_tool(headlines, annotations=_READS)

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


class Front:
    """Logs every request, misbehaves as the mode says, and hands what is left to the real server."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", buffering=1)
        self._plain, self._crowded = make_server(), make_crowded()
        self._apps: dict[str, App] = {
            "plain": self._plain.streamable_http_app(),
            "crowded": self._crowded.streamable_http_app(),
            "sse": self._plain.sse_app(),
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
        if name in MODES and await MODES[name](exchange, value):
            return
        if not authorized:
            await exchange.answer(401, "application/json", b"{}", www_authenticate="Bearer")
            return
        app = self._apps["sse" if rest[0] == "sse" else "crowded" if name == "crowded" else "plain"]
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
