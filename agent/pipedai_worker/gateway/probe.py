"""Asks a run's MCP server for its tools first, so that a failing one costs nothing (docs/decisions/gateway.md)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import httpx

from pipedai_worker import __version__
from pipedai_worker.gateway import faults, limits, messages
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.look import Look, Looked
from pipedai_worker.gateway.messages import Effects, ServerError
from pipedai_worker.gateway.upstream import (
    EVENTS,
    JSON,
    SESSION,
    VERSION,
    Event,
    Upstream,
    chunks_of,
    events_of,
    media_type,
    session_in,
)

# The versions of MCP in which a conversation begins with `initialize`. The probe offers the first one to the server.
VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
UNSUPPORTED_VERSION = -32022
MODERN_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"
# An event counts as at least this many bytes, because reading many small events would take time without bound.
SMALLEST_EVENT = 100
_LARGEST_MIB = limits.LARGEST_TOOLS_LIST // limits.MIB
TOO_LARGE = f"What the MCP server tells of its tools is larger than {_LARGEST_MIB} MiB."
USER_AGENT = ("User-Agent", f"pipedai-worker/{__version__}")


async def probe(upstream: Upstream, effects: Effects, look: Look | None) -> Looked | None:
    """Initialise the server, list its tools in 30 s, and take the `look`. Raises ServerFailed."""
    ends_at = asyncio.get_running_loop().time() + limits.PROBE_SECONDS
    conversation = Conversation(upstream)
    try:
        try:
            await _in_time(_learn(conversation, effects), ends_at)
        except ServerError as error:
            if error.code != UNSUPPORTED_VERSION:
                raise
            await _leave(conversation)
            # The server speaks only versions of MCP without `initialize` (2026-07-28 and later).
            conversation = ModernConversation(upstream)
            await _in_time(_list_tools(conversation, effects), ends_at)
        return None if look is None else await look.take(conversation, effects)
    finally:
        await _leave(conversation)


async def _in_time(asking: Awaitable[None], ends_at: float) -> None:
    try:
        await asyncio.wait_for(asking, ends_at - asyncio.get_running_loop().time())
    except asyncio.TimeoutError:
        raise faults.infra(
            f"The MCP server did not tell its tools within {limits.PROBE_SECONDS:g} s."
        ) from None


async def _learn(conversation: Conversation, effects: Effects) -> None:
    """Initialise the server, and list its tools if it has any."""
    if await _initialize(conversation):
        await _list_tools(conversation, effects)


async def _leave(conversation: Conversation) -> None:
    """End the session, which a server might otherwise keep for long. It does not matter whether the server answers."""
    with contextlib.suppress(ServerFailed, asyncio.TimeoutError):
        await asyncio.wait_for(conversation.leave(), limits.FAREWELL_SECONDS)


async def _initialize(conversation: Conversation) -> bool:
    """Agree with the server on a version of MCP. Return whether it says that it has tools."""
    about = {"capabilities": {}, "clientInfo": conversation.client}
    params = {"protocolVersion": VERSIONS[0], **about}
    result = await conversation.request(messages.INITIALIZE, params)
    version = result.get("protocolVersion")
    if version not in VERSIONS:
        raise faults.client("The MCP server speaks another version of the protocol.")
    conversation.version = version
    await conversation.notify("notifications/initialized")
    capabilities = result.get("capabilities")
    return isinstance(capabilities, dict) and isinstance(capabilities.get("tools"), dict)


async def _list_tools(conversation: Conversation, effects: Effects) -> None:
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    for _ in range(limits.MOST_TOOLS_PAGES):
        result = await conversation.request("tools/list", params)
        if not isinstance(result.get("tools"), list):
            raise faults.client("The MCP server's list of tools is no list.")
        await effects.learn_apart(result)
        cursor = result.get("nextCursor")
        if cursor is None:
            return
        if not isinstance(cursor, str) or cursor in cursors:
            raise faults.client("The MCP server's list of tools has no end.")
        cursors.add(cursor)
        params = {"cursor": cursor}
    raise faults.client(
        f"The MCP server's list of tools has more than {limits.MOST_TOOLS_PAGES} pages."
    )


class Conversation:
    """A conversation over streamable HTTP that begins with `initialize`. Its methods raise ServerFailed."""

    client = {"name": "pipedai-worker", "version": __version__}

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ids = itertools.count(1)
        # How many bytes the server may still send: as answers to requests, and as a stream's events that answer none.
        self.allow(limits.LARGEST_TOOLS_LIST, TOO_LARGE)
        # The version of MCP that the server has agreed to; None before that.
        self.version: str | None = None
        self._session: str | None = None

    def allow(self, size: int, too_large: str) -> None:
        """Allow `size` more bytes from the server; `too_large` is the sentence for an answer beyond."""
        self._largest = self._left = self._other = size
        self._too_large = too_large

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        id_as_json, body = self._made(method, params)
        headers = self._headers(method, str(params.get("name", "")))
        async with self._upstream.send("POST", headers, body) as response:
            await self._judge(response, method)
            if method == messages.INITIALIZE:
                self._session = session_in(response)
            kind = media_type(response)
            if kind == JSON:
                result = await result_in(await self._read(response), id_as_json, method)
            elif kind == EVENTS:
                result = await self._await_event(
                    events_of(response, self._largest, self._too_large), id_as_json, method
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

    def _headers(self, _method: str, _name: str = "") -> list[tuple[str, str]]:
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
        failed = faults.of_status(
            response.status_code,
            expiring=self._upstream.headers_expire,
            begins=method == messages.INITIALIZE,
        )
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

    def _made(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return json.dumps(number), json.dumps(message).encode()

    def _count(self, size: int) -> None:
        """Count `size` more bytes of answers. Raises ServerFailed when they exceed what is allowed."""
        self._left -= size
        if self._left < 0:
            raise faults.client(self._too_large)

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


class ModernConversation(Conversation):
    """A conversation in MCP since version 2026-07-28: it has no session, and each request says who sends it."""

    def _made(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        meta = {
            f"{_META}protocolVersion": MODERN_VERSION,
            f"{_META}clientInfo": self.client,
            f"{_META}clientCapabilities": {},
        }
        return super()._made(method, {**params, "_meta": meta})

    def _headers(self, method: str, name: str = "") -> list[tuple[str, str]]:
        of_a_call = [("Mcp-Name", name)] if name.isascii() and name.isprintable() and name else []
        modern = [(VERSION, MODERN_VERSION), ("Mcp-Method", method)]
        return [*super()._headers(method), *modern, *of_a_call]


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
