"""Writes one answer of the Messages API: an error, or a message as server-sent events."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Anthropic's own text pieces are shorter; what counts is that a long text comes in several.
_PIECE = 4_000


@dataclass(frozen=True)
class Message:
    """One turn of the model: what it says, the tools that it calls, and the tokens that this takes."""

    text: str = ""
    calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    input_tokens: int = 1_000
    output_tokens: int = 50
    stop_reason: str = ""

    def content(self) -> list[dict[str, Any]]:
        """Return the blocks, each with a new id."""
        blocks: list[dict[str, Any]] = [{"type": "text", "text": self.text}] if self.text else []
        for name, arguments in self.calls:
            call = {"type": "tool_use", "id": f"toolu_{uuid4().hex[:24]}", "name": name}
            blocks.append({**call, "input": dict(arguments)})
        return blocks


class Reply:
    """The way to answer one request. `body` is what was asked."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: Mapping[str, Any]) -> None:
        self._handler = handler
        self._body = body

    def json(self, status: int, content: Any, headers: Mapping[str, str] = {}) -> None:
        """Answer with JSON."""
        text = json.dumps(content).encode()
        own = {"Content-Type": "application/json", "Content-Length": str(len(text))}
        self._head(status, {**own, **headers})
        self._handler.wfile.write(text)

    def error(self, status: int, message: str = "", headers: Mapping[str, str] = {}) -> None:
        """Answer with an error in the API's form, which closes the connection."""
        error = {
            "type": _KINDS.get(status, "api_error"),
            "message": message or f"Scripted {status}.",
        }
        self.json(status, {"type": "error", "error": error, "request_id": "req_scripted"}, headers)

    def message(self, message: Message, headers: Mapping[str, str] = {}) -> None:
        """Answer with a whole message, streamed if the request asks for that."""
        if self._body.get("stream"):
            self.stream(self.events(message), headers)
        else:
            self.json(200, {**self._opening(message), "content": message.content()}, headers)

    def stream(self, events: Iterator[bytes], headers: Mapping[str, str] = {}) -> None:
        """Answer with these events as they come. The connection closes after the last."""
        self._head(200, {"Content-Type": "text/event-stream", "Connection": "close", **headers})
        self._handler.close_connection = True
        for each in events:
            self._handler.wfile.write(each)
            self._handler.wfile.flush()

    def events(self, message: Message) -> Iterator[bytes]:
        """Return the events of a message, a text in pieces."""
        opening = self._opening(message)
        usage = {**opening["usage"], "output_tokens": 1}
        opening = {**opening, "stop_reason": None, "usage": usage, "content": []}
        yield event("message_start", message=opening)
        for index, block in enumerate(message.content()):
            empty: dict[str, Any] = {"text": ""} if block["type"] == "text" else {"input": {}}
            yield event("content_block_start", index=index, content_block={**block, **empty})
            for delta in _deltas(block):
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
        ending = {"stop_reason": self._stop_reason(message), "stop_sequence": None}
        usage = {"output_tokens": message.output_tokens}
        yield event("message_delta", delta=ending, usage=usage)
        yield event("message_stop")

    def cut(self) -> None:
        """Reset the connection."""
        connection = self._handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True
        with suppress(OSError):
            connection.close()

    def _opening(self, message: Message) -> dict[str, Any]:
        return {
            "id": f"msg_{uuid4().hex[:24]}",
            "type": "message",
            "role": "assistant",
            "model": self._body.get("model"),
            "stop_reason": self._stop_reason(message),
            "stop_sequence": None,
            "usage": {
                "input_tokens": message.input_tokens,
                "output_tokens": message.output_tokens,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 0,
            },
        }

    def _stop_reason(self, message: Message) -> str:
        return message.stop_reason or ("tool_use" if message.calls else "end_turn")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in {"request-id": f"req_{uuid4().hex[:20]}", **headers}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()


def event(kind: str, **content: Any) -> bytes:
    """Return one server-sent event of the Messages API."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        text = block["text"]
        for start in range(0, len(text), _PIECE):
            yield {"type": "text_delta", "text": text[start : start + _PIECE]}
    else:
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
