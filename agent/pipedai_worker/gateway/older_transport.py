"""Forwards the older transport of MCP (2024-11-05): one stream of events, whose first one names the URL for POSTs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urljoin

import httpx

from pipedai_worker.gateway import faults
from pipedai_worker.gateway.exchange import Answer, Request
from pipedai_worker.gateway.forwarding import Forwarding
from pipedai_worker.gateway.reading import EVENTS, events_of, media_type
from pipedai_worker.gateway.upstream import Upstream
from pipedai_worker.gateway.waiting import Waiting

ENDPOINT = b"endpoint"
LONGEST_ENDPOINT = 8 * 1024
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, repr=False)
class OlderTransport:
    """Forwards MCP's older transport. Instead of the server's URLs the client gets the gateway's, below `posts`."""

    _upstream: Upstream
    _waiting: Waiting
    _forwarding: Forwarding
    _posts: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    # The server's URL for the POSTs of each open stream.
    _endpoints: dict[str, httpx.URL] = field(default_factory=dict)

    async def open_stream(self, request: Request, answer: Answer) -> None:
        """Forward a stream of events until the server or the client ends it. Raises ServerFailed."""
        answer.presence.expect_client()
        number = str(next(self._numbers))
        try:
            async with self._upstream.send("GET", request.headers, seconds=None) as response:
                failed = faults.of_status(response.status_code)
                if failed is not None:
                    raise failed
                if media_type(response) != EVENTS:
                    raise faults.client("The MCP server's answer is no stream of events.")
                await answer.begin_events(HTTPStatus.OK, {})
                async for event in events_of(response):
                    if event.kind == ENDPOINT:
                        self._endpoints[number] = endpoint(self._upstream.url, event.data)
                        own = f"event: endpoint\ndata: {self._posts}{number}\n\n"
                        await answer.write(own.encode())
                    else:
                        await self._waiting.hear_apart(_session(number), event.data)
                        await answer.write(event.encode())
                await answer.end()
        finally:
            self._endpoints.pop(number, None)

    async def post(self, number: str, request: Request, answer: Answer) -> None:
        url = self._endpoints.get(number)
        if url is None:
            await answer.send(HTTPStatus.NOT_FOUND)
            return
        await self._forwarding.post(request, answer, url=url, stream=_session(number))


def endpoint(server: httpx.URL, data: bytes) -> httpx.URL:
    """Return the URL of an `endpoint` event. Raises ServerFailed for another origin than the server's."""
    try:
        if len(data) > LONGEST_ENDPOINT:
            raise ValueError
        url = httpx.URL(urljoin(str(server), data.decode().strip()))
    except (httpx.InvalidURL, ValueError):
        raise faults.client("The MCP server named an endpoint that is no URL.") from None
    if _origin(url) != _origin(server) or url.userinfo:
        raise faults.client(
            "The MCP server named an endpoint of another origin, which is not used."
        )
    return url.copy_with(fragment=None)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _session(number: str) -> str:
    # The name of a stream has a space in it. No session id of a server has one, so the two are never confused.
    return f"stream {number}"
