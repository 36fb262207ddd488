"""Defines how the probe, which checks a run's MCP server before the run starts, speaks with that server.

Each transport of MCP has a class of its own, made from `Conversation`. The rules for answers are the same for all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from pipedai_worker import __version__
from pipedai_worker.gateway import faults, limits, messages
from pipedai_worker.gateway.events import Event, EventSplitter, EventTooLarge
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.reading import chunks_of
from pipedai_worker.gateway.upstream import Upstream
from pipedai_worker.outcome import CLIENT

# An event counts as at least this many bytes, because a server could otherwise send very many small events, and reading
# them would take time without bound.
SMALLEST_EVENT = 100
USER_AGENT = ("User-Agent", f"pipedai-worker/{__version__}")


class ServerError(ServerFailed):
    """The server answered with a JSON-RPC error."""

    def __init__(self, method: str, code: object) -> None:
        # A larger number is no code of a protocol, and could have thousands of digits.
        self.code = code if isinstance(code, int) and abs(code) < 2**31 else None
        named = f" ({self.code})" if self.code is not None else ""
        super().__init__(CLIENT, f"The MCP server answered `{method}` with an error{named}.")


class Conversation:
    """A conversation of the probe with the MCP server, over one of MCP's transports. Its methods raise ServerFailed."""

    client = {"name": "pipedai-worker", "version": __version__}

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ids = itertools.count(1)
        # How many bytes the server may still send: `_left` in answers to requests, `_other` in a stream's events that
        # answer none.
        self._left = self._other = limits.LARGEST_TOOLS_LIST
        # The version of MCP that the server has agreed to; None before that.
        self.version: str | None = None

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections that this conversation still has open."""

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result."""
        raise NotImplementedError

    async def notify(self, method: str) -> None:
        """Send a notification."""
        raise NotImplementedError

    async def leave(self) -> None:
        """End the session with the server, if this transport has sessions."""

    def _made(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        """Make a request. Return its id as JSON text, and the whole request as JSON in bytes."""
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return json.dumps(number), json.dumps(message).encode()

    def _count(self, size: int) -> None:
        """Count `size` more bytes of answers. Raises ServerFailed when they exceed what a list of tools may have."""
        self._left -= size
        if self._left < 0:
            raise too_large()

    async def _await_event(
        self, events: AsyncIterator[Event], id_as_json: str, method: str
    ) -> dict[str, Any] | None:
        """Return the result that a stream of events brings for a request; None if the stream ends without it."""
        async for event in events:
            size = sum(map(len, event.lines))
            result = await result_in(event.data, id_as_json, method)
            if result is not None:
                self._count(size)
                return result
            self._other -= max(size, SMALLEST_EVENT)
            if self._other < 0:
                raise faults.infra("The MCP server sends and sends, but no answer.")
        return None


async def result_in(data: bytes, id_as_json: str, method: str) -> dict[str, Any] | None:
    """Return the result that answers the request with this id, or None if `data` has none.

    `data` is what the server sent. Raises ServerFailed if the server answered the request with an error, or if `data`
    has too many values.
    """
    for message in await messages.read_apart(data, messages.read_answered):
        if messages.answer_id(message) != id_as_json or message.get("jsonrpc") != "2.0":
            continue
        if "error" in message:
            error = message["error"]
            raise ServerError(method, error.get("code") if isinstance(error, dict) else None)
        result = message.get("result")
        if not isinstance(result, dict):
            break
        return result
    return None


async def events_in(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of an answer, none of them larger than a list of tools may be. Raises ServerFailed."""
    splitter = EventSplitter(limits.LARGEST_TOOLS_LIST)
    try:
        async for chunk in chunks_of(response):
            for event in splitter.feed(chunk):
                yield event
    except EventTooLarge:
        raise too_large() from None


def too_large() -> ServerFailed:
    """Return the error for a server whose list of tools, or whose answer to the probe, is too large."""
    size = limits.LARGEST_TOOLS_LIST // limits.MIB
    return faults.client(f"What the MCP server tells of its tools is larger than {size} MiB.")


def no_mcp() -> ServerFailed:
    """Return the error for a server that answers with something that is not MCP."""
    return faults.client("The MCP server's answer is not MCP.")
