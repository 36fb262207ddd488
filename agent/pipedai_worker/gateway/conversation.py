"""How the probe, which checks a run's MCP server before the run, speaks with it: a class for each transport."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from pipedai_worker import __version__
from pipedai_worker.gateway import faults, limits, messages
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.older_transport import ENDPOINT, endpoint
from pipedai_worker.gateway.reading import (
    EVENTS,
    JSON,
    SESSION,
    VERSION,
    Event,
    chunks_of,
    events_of,
    media_type,
    session_in,
)
from pipedai_worker.gateway.upstream import Upstream
from pipedai_worker.reporting.outcome import CLIENT

# An event counts as at least this many bytes, because reading many small events would take time without bound.
SMALLEST_EVENT = 100
_LARGEST_MIB = limits.LARGEST_TOOLS_LIST // limits.MIB
TOO_LARGE = f"What the MCP server tells of its tools is larger than {_LARGEST_MIB} MiB."
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
        # How many bytes the server may still send: as answers to requests, and as a stream's events that answer none.
        self._left = self._other = limits.LARGEST_TOOLS_LIST
        # The version of MCP that the server has agreed to; None before that.
        self.version: str | None = None

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections that this conversation still has open."""

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def notify(self, method: str) -> None:
        raise NotImplementedError

    async def leave(self) -> None:
        """End the session with the server, if this transport has sessions."""

    def _failure(self, response: httpx.Response) -> ServerFailed | None:
        return faults.of_status(response.status_code, expiring=self._upstream.headers_expire)

    def _made(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return json.dumps(number), json.dumps(message).encode()

    def _count(self, size: int) -> None:
        """Count `size` more bytes of answers. Raises ServerFailed when they exceed what a list of tools may have."""
        self._left -= size
        if self._left < 0:
            raise faults.client(TOO_LARGE)

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
    """Return the result for this id in what the server sent, or None. Raises ServerFailed if it is an error."""
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


def no_mcp() -> ServerFailed:
    return faults.client("The MCP server's answer is not MCP.")


class StreamConversation(Conversation):
    """A conversation over the older transport: the answers to all POSTs come on one stream of events."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__(upstream)
        self._open = contextlib.AsyncExitStack()
        self._events: AsyncIterator[Event] | None = None
        self._endpoint: httpx.URL | None = None

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        events = self._events or await self._connect()
        id_as_json, body = self._made(method, params)
        await self._post(body)
        result = await self._await_event(events, id_as_json, method)
        if result is None:
            raise faults.infra("The MCP server ended its stream of events before it answered.")
        return result

    async def notify(self, method: str) -> None:
        await self._post(json.dumps({"jsonrpc": "2.0", "method": method}).encode())

    async def _connect(self) -> AsyncIterator[Event]:
        """Open the event stream of MCP's older transport (SSE), and wait for its event that names the POST URL."""
        response = await self._open.enter_async_context(
            self._upstream.send("GET", [USER_AGENT, ("Accept", EVENTS)])
        )
        failed = self._failure(response)
        if failed is not None:
            raise failed
        if media_type(response) != EVENTS:
            raise no_mcp()
        self._events = events = events_of(response, limits.LARGEST_TOOLS_LIST, TOO_LARGE)
        async for event in events:
            if event.kind == ENDPOINT:
                self._endpoint = endpoint(self._upstream.url, event.data)
                return events
        raise no_mcp()

    async def _post(self, body: bytes) -> None:
        headers = [USER_AGENT, ("Content-Type", JSON)]
        async with self._upstream.send("POST", headers, body, url=self._endpoint) as response:
            failed = self._failure(response)
            if failed is not None:
                raise failed


MODERN_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"


class PostConversation(Conversation):
    """A conversation over streamable HTTP that begins with `initialize`. The server may give it a session."""

    _session: str | None = None

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        id_as_json, body = self._made(method, params)
        async with self._upstream.send("POST", self._headers(method), body) as response:
            await self._judge(response, method)
            if method == "initialize":
                self._session = session_in(response)
            kind = media_type(response)
            if kind == JSON:
                result = await result_in(await self._read(response), id_as_json, method)
            elif kind == EVENTS:
                result = await self._await_event(
                    events_of(response, limits.LARGEST_TOOLS_LIST, TOO_LARGE), id_as_json, method
                )
            else:
                raise no_mcp()
        if result is None:
            raise no_mcp()
        return result

    async def notify(self, method: str) -> None:
        body = json.dumps({"jsonrpc": "2.0", "method": method}).encode()
        async with self._upstream.send("POST", self._headers(method), body) as response:
            await self._judge(response, method)

    async def leave(self) -> None:
        if self._session is not None:
            async with self._upstream.send("DELETE", self._headers("")):
                pass

    def _headers(self, _method: str) -> list[tuple[str, str]]:
        headers = [
            USER_AGENT,
            ("Content-Type", JSON),
            ("Accept", f"{JSON}, {EVENTS}"),
        ]
        if self._session is not None:
            headers.append((SESSION, self._session))
        if self.version is not None:
            headers.append((VERSION, self.version))
        return headers

    async def _judge(self, response: httpx.Response, method: str) -> None:
        """Raise ServerError if the answer holds a JSON-RPC error, or ServerFailed if its status is no success."""
        failed = self._failure(response)
        if failed is None:
            return
        if response.status_code in {400, 404} and media_type(response) == JSON:
            body = await self._read(response)
            for message in await messages.read_apart(body, messages.read_answered):
                error = message.get("error")
                if message.get("jsonrpc") == "2.0" and isinstance(error, dict):
                    raise ServerError(method, error.get("code"))
        raise failed

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in chunks_of(response):
            self._count(len(chunk))
            body += chunk
        return bytes(body)


class ModernConversation(PostConversation):
    """A conversation in MCP since version 2026-07-28: it has no session, and each request says who sends it."""

    def _made(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        meta = {
            f"{_META}protocolVersion": MODERN_VERSION,
            f"{_META}clientInfo": self.client,
            f"{_META}clientCapabilities": {},
        }
        return super()._made(method, {**params, "_meta": meta})

    def _headers(self, method: str) -> list[tuple[str, str]]:
        return [*super()._headers(method), (VERSION, MODERN_VERSION), ("Mcp-Method", method)]
