"""Reads the head of an HTTP request to the gateway from its connection, and writes the answer to the request."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from http import HTTPStatus

from pipedai_worker.gateway.reading import JSON

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]+) HTTP/(\d\.\d)")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class BadRequest(Exception):  # noqa: N818 - carries the answer
    """A request that can't be served. It is answered with the status `status`, and its connection is closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One HTTP request. The names of its headers are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the only value of a header; None if there is none or more than one."""
        found = [value for one, value in self.headers if one == name]
        return found[0] if len(found) == 1 else None

    def has(self, name: str) -> bool:
        """Tell whether the request has a header of this name."""
        return any(one == name for one, _ in self.headers)


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request of a connection, without its body; None when the client has closed the connection.

    Raises BadRequest.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    first, *lines = head[:-4].split(b"\r\n")
    matched = _REQUEST_LINE.fullmatch(first)
    if matched is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if matched[3] != b"1.1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers = tuple(_header(line) for line in lines)
    return Request(matched[1].decode(), matched[2].decode(), headers, b"")


def _header(line: bytes) -> tuple[str, str]:
    # No regular expression matches the whole line. It could divide the line's spaces between its parts in very many
    # ways, and would try all of them, which takes hours for a long line.
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    return name.decode().lower(), value.decode("latin-1")


class Presence:
    """Knows whether a connection's client is still there, and which task to cancel when it goes away."""

    def __init__(self) -> None:
        self.gone = False
        self.task: asyncio.Task[None] | None = None
        self._expected = False

    def expect_client(self) -> None:
        """Have the connection's task canceled if its client leaves.

        Raises ConnectionError if the client has left already.
        """
        if self.gone:
            raise ConnectionError
        self._expected = True

    def finished(self) -> None:
        """Note that the request has been answered, so nothing is canceled if the client leaves now."""
        self._expected = False

    def leave(self) -> None:
        """Note that the client has left. The task goes on if the client waits for no answer, as with a notification."""
        self.gone = True
        if self._expected and self.task is not None:
            self.task.cancel()


class Answer:
    """Writes the answer to one request: either whole, by `send()`, or as a stream of pieces, each sent at once."""

    def __init__(self, writer: asyncio.StreamWriter, presence: Presence) -> None:
        self._writer = writer
        self.presence = presence
        self.begun = False

    async def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = JSON,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        """Send a whole answer. `close` tells the client that the connection ends with it."""
        told = {"Content-Length": str(len(body)), **(headers or {})}
        if body:
            told["Content-Type"] = content_type
        if close:
            told["Connection"] = "close"
        if status == HTTPStatus.NO_CONTENT:
            del told["Content-Length"]
        self.begun = True
        self._writer.write(_head(status, told) + body)
        await self._writer.drain()

    async def begin_events(self, status: int, headers: dict[str, str]) -> None:
        """Begin an answer that is a stream of events."""
        told = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache, no-transform",
            "Transfer-Encoding": "chunked",
            **headers,
        }
        self.begun = True
        self._writer.write(_head(status, told))
        await self._writer.drain()

    async def write(self, piece: bytes) -> None:
        """Send a piece of a stream. Return when the client has taken enough of the earlier pieces."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self._writer.drain()

    async def end(self) -> None:
        """End the stream, so that the client sees that it is complete."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


def _head(status: int, headers: dict[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
