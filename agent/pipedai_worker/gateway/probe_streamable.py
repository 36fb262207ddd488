"""Speaks to the server by streamable HTTP, for the probe."""

from __future__ import annotations

import json
from typing import Any

import httpx

from pipedai_worker.gateway import faults, messages
from pipedai_worker.gateway.conversation import (
    USER_AGENT,
    Conversation,
    ServerError,
    events_in,
    no_mcp,
    result_in,
)
from pipedai_worker.gateway.reading import (
    EVENTS,
    JSON,
    SESSION,
    VERSION,
    chunks_of,
    media_type,
    session_in,
)

MODERN_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"


class PostConversation(Conversation):
    """A conversation over streamable HTTP that begins with `initialize`.

    It has a session if the server answers with the id of one.
    """

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
                result = await self._await_event(events_in(response), id_as_json, method)
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
        failed = faults.of_status(response.status_code)
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
