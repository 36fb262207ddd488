"""Reads the MCP server's answers as they come, and limits how large they may be and how long they may take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import httpx

from pipedai_worker.gateway import faults, limits
from pipedai_worker.gateway.events import Event, EventSplitter, EventTooLarge

_SESSION_ID = re.compile(r"[!-~]+")

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
SESSION, VERSION = "mcp-session-id", "mcp-protocol-version"
# The extension of an answer that says when all of it must have come, by the event loop's clock; None sets no limit.
ENDS_AT = "pipedai_ends_at"

Came = TypeVar("Came")


async def within(ends_at: float | None, coming: Awaitable[Came]) -> Came:
    """Return what comes from the MCP server. Raises ServerFailed if it has not come by `ends_at`."""
    seconds = None if ends_at is None else ends_at - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(coming, seconds)
    except asyncio.TimeoutError:
        raise faults.infra("The MCP server took too long to answer.", unanswered=True) from None


async def chunks_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the bytes of an answer as they come. Raises ServerFailed if the connection fails or the time is up."""
    chunks = response.aiter_raw()
    try:
        while True:
            yield await within(response.extensions[ENDS_AT], chunks.__anext__())
    except StopAsyncIteration:
        return
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise faults.of_error(error) from None


async def events_of(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of an answer as they come. Raises ServerFailed if one is too large or the connection fails."""
    splitter = EventSplitter(limits.LARGEST_EVENT)
    try:
        async for chunk in chunks_of(response):
            for event in splitter.feed(chunk):
                yield event
    except EventTooLarge:
        size = limits.LARGEST_EVENT // limits.MIB
        raise faults.client(f"The MCP server sent an event of more than {size} MiB.") from None


async def read_whole(response: httpx.Response, largest: int = limits.LARGEST_ANSWER) -> bytes:
    """Return the body of an answer. Raises ServerFailed if it is too large or does not come whole."""
    body = bytearray()
    async for chunk in chunks_of(response):
        body += chunk
        if len(body) > largest:
            raise faults.client(f"The MCP server's answer is larger than {largest // 1024} KiB.")
    return bytes(body)


async def read_short(response: httpx.Response) -> bytes:
    """Return the body of an answer that is not what a call waits for, so it is short and comes at once.

    Raises ServerFailed.
    """
    if response.extensions[ENDS_AT] is None:
        now = asyncio.get_running_loop().time()
        response.extensions[ENDS_AT] = now + limits.ANSWER_SECONDS
    return await read_whole(response, limits.LARGEST_HEAD)


def media_type(response: httpx.Response) -> str:
    """Return the media type of an answer in lower case, without parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def session_in(response: httpx.Response) -> str | None:
    """Return the session id in an answer's headers, or None. Raises ServerFailed for one that MCP does not allow."""
    session: str | None = response.headers.get(SESSION)
    if session is not None and (
        not _SESSION_ID.fullmatch(session) or len(session) > limits.LONGEST_SESSION_ID
    ):
        raise faults.client("The MCP server gave a session id that is none.")
    return session
