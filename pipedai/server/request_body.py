"""Reads a request's whole body, within limits of size and time, before any other code works on the request."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from http import HTTPStatus

from pipedai.api.error_codes import ErrorCode
from pipedai.server.headers import RawHeaders
from pipedai.server.memory_budget import Holding, overloaded
from pipedai.server.request_scope import App, ClientGone, Message, Receive, Refused, Scope

# A refused client may go on sending for this many seconds, and at most LINGER_BYTES bytes. If we closed the connection
# while bytes are unread, the operating system would reset it and the client would lose the answer.
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


async def read_body(
    headers: RawHeaders, receive: Receive, *, max_bytes: int, seconds: float, holding: Holding
) -> bytes:
    """Return the whole body, counted in `holding`. Raises Refused if it is too large, too late or malformed, or if
    there is no room, and ClientGone.
    """
    _refuse_by_headers(dict(headers), max_bytes)
    whole: bytes | bytearray = b""
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                more = message.get("more_body", False)
                if piece := message.get("body", b""):
                    if len(whole) + len(piece) > max_bytes:
                        raise _too_large(max_bytes, unread=more)
                    if not holding.has_room(len(piece)):
                        raise overloaded(unread=more)
                    holding.take(len(piece))
                    if not whole:
                        whole = piece
                    elif isinstance(whole, bytearray):
                        whole += piece
                    else:
                        whole = bytearray(whole) + piece
                if not more:
                    return bytes(whole)
    except TimeoutError:
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {seconds:g} seconds.",
            code=ErrorCode.REQUEST_TIMEOUT,
        ) from None


async def discard_body(receive: Receive) -> None:
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


class Replay:
    """An ASGI `receive` that returns the whole body once. A second call returns when the client leaves."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    def __call__(self) -> Awaitable[Message]:
        if self._body is None:
            return self._receive()
        body, self._body = self._body, None
        return _whole(body)


async def whole_answer(endpoint: App, scope: Scope, body: bytes) -> list[Message]:
    """Return the messages of the endpoint's answer. It hears of no client that leaves."""
    answer: list[Message] = []

    async def keep(message: Message) -> None:
        answer.append(message)

    await endpoint(scope, Replay(body, _nothing_more), keep)
    return answer


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


async def _whole(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


def _refuse_by_headers(headers: dict[bytes, bytes], max_bytes: int) -> None:
    length = headers.get(b"content-length", b"0")
    # A length of more than 18 digits exceeds any limit, and int() refuses numbers that are much longer.
    if length.isdigit() and (len(length) > 18 or int(length) > max_bytes):
        raise _too_large(max_bytes, unread=True)
    # Only Transfer-Encoding is checked here. The API's code that reads the body checks Content-Encoding
    # (pipedai.api.parsers).
    codings = {
        coding.strip().lower() for coding in headers.get(b"transfer-encoding", b"").split(b",")
    }
    if not codings <= {b"", b"identity", b"chunked"}:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The body must not be compressed.",
            code=ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        )


def _too_large(max_bytes: int, *, unread: bool) -> Refused:
    size = f"{max_bytes // 1024} KiB" if max_bytes % (1024 * 1024) else f"{max_bytes >> 20} MiB"
    sentence = f"The body must not be over {size}."
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence, code=ErrorCode.BODY_TOO_LARGE, unread=unread
    )
