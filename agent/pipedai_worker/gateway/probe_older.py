"""Speaks to the server by the older transport (HTTP with SSE), for the probe."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from pipedai_worker.gateway import faults
from pipedai_worker.gateway.conversation import USER_AGENT, Conversation, events_in, no_mcp
from pipedai_worker.gateway.events import Event
from pipedai_worker.gateway.older_transport import ENDPOINT, endpoint
from pipedai_worker.gateway.reading import EVENTS, JSON, media_type
from pipedai_worker.gateway.upstream import Upstream


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
        failed = faults.of_status(response.status_code)
        if failed is not None:
            raise failed
        if media_type(response) != EVENTS:
            raise no_mcp()
        self._events = events = events_in(response)
        async for event in events:
            if event.kind == ENDPOINT:
                self._endpoint = endpoint(self._upstream.url, event.data)
                return events
        raise no_mcp()

    async def _post(self, body: bytes) -> None:
        headers = [USER_AGENT, ("Content-Type", JSON)]
        async with self._upstream.send("POST", headers, body, url=self._endpoint) as response:
            failed = faults.of_status(response.status_code)
            if failed is not None:
                raise failed
