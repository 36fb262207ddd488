"""Reads the bodies of HTTP requests to the gateway, and bounds the memory that all of them together take."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from http import HTTPStatus

from pipedai_worker.gateway import limits
from pipedai_worker.gateway.exchange import BadRequest, Request

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_LENGTH = re.compile(r"\d{1,12}")


class Room:
    """Counts how many bytes of request bodies a gateway may still take into memory; `left` is that number."""

    def __init__(self, most: int) -> None:
        self.left = most


class Share:
    """The bytes that one request takes of a Room. It is a context manager, whose exit gives the bytes back."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.left += self._taken

    def take(self, size: int) -> None:
        """Take `size` more bytes of the Room. Raises BadRequest (503) if the Room has fewer left."""
        if size > self._room.left:
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE)
        self._room.left -= size
        self._taken += size


async def read_body(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, share: Share
) -> Request | None:
    """Return the request with its body; None when the client has closed the connection. Raises BadRequest."""
    try:
        body = await _read_body(request, reader, writer, share)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest(HTTPStatus.BAD_REQUEST) from None
    return replace(request, body=body)


async def _read_body(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, share: Share
) -> bytes:
    length, encoding = request.header("content-length"), request.header("transfer-encoding")
    if request.has("transfer-encoding"):
        if request.has("content-length") or (encoding or "").lower() != "chunked":
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        _invite(request, writer)
        return await _read_chunks(reader, share)
    if not request.has("content-length"):
        return b""
    if length is None or not _LENGTH.fullmatch(length):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if int(length) > limits.LARGEST_REQUEST:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    share.take(int(length))
    _invite(request, writer)
    return await reader.readexactly(int(length))


def _invite(request: Request, writer: asyncio.StreamWriter) -> None:
    if (request.header("expect") or "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read_chunks(reader: asyncio.StreamReader, share: Share) -> bytes:
    body = bytearray()
    while True:
        matched = _CHUNK_SIZE.fullmatch(await reader.readuntil(b"\r\n"))
        if matched is None:
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        size = int(matched[1], 16)
        if len(body) + size > limits.LARGEST_REQUEST:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if size == 0:
            break
        share.take(size)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise BadRequest(HTTPStatus.BAD_REQUEST)
    # Header fields may follow the last chunk. They are read, and thrown away.
    size = 0
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        size += len(line)
        if size > limits.LARGEST_HEAD:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return bytes(body)
