"""The ways in which the MCP server of the scenarios can misbehave: `mcp_program.py` picks one by a request's URL."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


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
    if exchange.message.get("method") == "initialize":
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


async def _called(exchange: Exchange, value: str) -> bool:
    if not exchange.concerns("tools-call"):
        return False
    name, _, rest = exchange.message["params"]["arguments"]["text"].partition("-")
    return name in MODES and await MODES[name](exchange, rest)


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


# A client of the newest protocol begins with the second.
_OPENING = {"initialize", "server/discover"}
_connections: Counter[str] = Counter()


async def _later(exchange: Exchange, value: str) -> bool:
    if exchange.message.get("method") not in _OPENING:
        return False
    path = exchange.scope["path"]
    _connections[path] += 1
    return _connections[path] > 1 and await _status(exchange, value)


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
MODES: dict[str, Callable[[Exchange, str], Awaitable[bool]]] = {
    "status": _status,  # status-503: every request is answered so
    "delay": _delay,  # delay-40: the connection is answered after 40 s
    "slowtools": _slow_tools,  # slowtools-40: the list of tools takes 40 s
    "html": _html,  # a web page
    "called": _called,  # a tool call is answered in the mode that its text names, if it names one
    "words": _words,  # JSON that is no JSON-RPC
    "version": _version,  # version-1999-01-01: a protocol version that nobody asked for
    "bomb": _bomb,  # 1 GiB, packed into 1 MB
    "endless": _endless,  # endless-sse, endless-json: an answer without an end
    "later": _later,  # later-503: every connection but the first is answered so
    "stall": _stall,  # no answer, ever; stall-tools-call: none to that method
    "reset": _reset,  # a reset connection; reset-tools-call: for that method
}
