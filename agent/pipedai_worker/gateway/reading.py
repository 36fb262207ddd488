"""Reads the MCP server's answers and streams of events as they come, within bounds of size and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx

from pipedai_worker.gateway import faults, limits

_SESSION_ID = re.compile(r"[!-~]+")

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
SESSION, VERSION = "mcp-session-id", "mcp-protocol-version"
# The extension of an httpx answer with the time by which it must have come whole (event loop's clock); None: no limit.
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
    chunks = response.aiter_raw()
    try:
        while True:
            yield await within(response.extensions[ENDS_AT], chunks.__anext__())
    except StopAsyncIteration:
        return
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise faults.of_error(error) from None


async def events_of(
    response: httpx.Response,
    largest: int = limits.LARGEST_EVENT,
    too_large: str = f"The MCP server sent an event of more than {limits.LARGEST_EVENT // limits.MIB} MiB.",
) -> AsyncIterator[Event]:
    """Yield the events of an answer. Raises ServerFailed, with the sentence `too_large` for one of more bytes."""
    splitter = EventSplitter(largest)
    try:
        async for chunk in chunks_of(response):
            for event in splitter.feed(chunk):
                yield event
    except EventTooLarge:
        raise faults.client(too_large) from None


async def read_whole(response: httpx.Response, largest: int = limits.LARGEST_ANSWER) -> bytes:
    body = bytearray()
    async for chunk in chunks_of(response):
        body += chunk
        if len(body) > largest:
            raise faults.client(f"The MCP server's answer is larger than {largest // 1024} KiB.")
    return bytes(body)


async def read_short(response: httpx.Response) -> bytes:
    """Return the short body of an answer that is not what a call waits for. Raises ServerFailed."""
    if response.extensions[ENDS_AT] is None:
        now = asyncio.get_running_loop().time()
        response.extensions[ENDS_AT] = now + limits.ANSWER_SECONDS
    return await read_whole(response, limits.LARGEST_HEAD)


def media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def session_in(response: httpx.Response) -> str | None:
    """Return the session id in an answer's headers, or None. Raises ServerFailed for one that MCP does not allow."""
    session: str | None = response.headers.get(SESSION)
    if session is not None and (
        not _SESSION_ID.fullmatch(session) or len(session) > limits.LONGEST_SESSION_ID
    ):
        raise faults.client("The MCP server gave a session id that is none.")
    return session


_LINE_END = re.compile(rb"\r\n|\n|\r")
# A stored line takes about this many bytes of memory besides its text. They count towards the limit of an event,
# because an event of a million short lines would otherwise take thirty times the memory of one long line.
_LINE_COST = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):  # noqa: N818 - a state of the stream
    """One event is larger than the limit."""


@dataclass(frozen=True)
class Event:
    """One event: its lines as they came, without line ends."""

    lines: tuple[bytes, ...]

    def encode(self) -> bytes:
        return b"\n".join(self.lines) + b"\n\n"

    @property
    def kind(self) -> bytes:
        return (self._values(b"event") or [b""])[-1] or b"message"

    @property
    def data(self) -> bytes:
        return b"\n".join(self._values(b"data"))

    @property
    def has_id(self) -> bool:
        return any(self._values(b"id"))

    def _values(self, field: bytes) -> list[bytes]:
        values = []
        for line in self.lines:
            name, _, value = line.partition(b":")
            if name == field:
                values.append(value[1:] if value[:1] == b" " else value)
        return values


class EventSplitter:
    """Takes the bytes of one stream. An event that the stream's end cuts off is dropped, as the HTML standard says."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._held = bytearray()
        # How many bytes at the beginning of `_held` have been searched for a line end without finding one.
        self._searched = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        self._held += chunk
        if not self._begun:
            if _BYTE_ORDER_MARK.startswith(self._held) and len(self._held) < len(_BYTE_ORDER_MARK):
                return
            self._begun = True
            if self._held.startswith(_BYTE_ORDER_MARK):
                del self._held[: len(_BYTE_ORDER_MARK)]
        yield from self._split()
        if self._size + len(self._held) > self._largest:
            raise EventTooLarge

    def _split(self) -> Iterator[Event]:
        if self._after_cr and self._held:
            # The bytes before these ended in CR, which ends a line. An LF that follows belongs to the same line end.
            self._after_cr = False
            if self._held[:1] == b"\n":
                del self._held[:1]
        position = 0
        while (end := _LINE_END.search(self._held, max(position, self._searched))) is not None:
            line = bytes(self._held[position : end.start()])
            position = self._searched = end.end()
            self._after_cr = end.group() == b"\r" and position == len(self._held)
            if line:
                self._lines.append(line)
                self._size += len(line) + _LINE_COST
                if self._size > self._largest:
                    raise EventTooLarge
            elif self._lines:
                event = Event(tuple(self._lines))
                self._lines, self._size = [], 0
                yield event
        del self._held[:position]
        self._searched = len(self._held)
