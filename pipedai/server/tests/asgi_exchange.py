"""Calls an ASGI application as a server would, and keeps its answer."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.server.request_scope import App, Message
from testing.probes.error_codes import CODES


def http_scope(method: str = "GET", path: str = "/api/v1/x", **more: Any) -> dict[str, Any]:
    """Returns a scope as gunicorn makes it. `headers` may be a dict or pairs of text."""
    headers = more.pop("headers", {"host": "localhost"})
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": more.pop("query", "").encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("203.0.113.9", 4711),
        "server": ("127.0.0.1", 8000),
        HOLDING: Holding(MemoryBudget(), "203.0.113.9"),
        **more,
    }


@dataclass
class Exchange:
    """One request: the pieces of its body, and the messages of its answer."""

    scope: dict[str, Any]
    pieces: list[bytes] = field(default_factory=lambda: [b""])
    # Whether the body ever ends.
    ends: bool = True
    sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gone = asyncio.Event()
        self.received = 0

    async def receive(self) -> Message:
        if self.gone.is_set():
            return {"type": "http.disconnect"}
        if self.received < len(self.pieces):
            piece = self.pieces[self.received]
            self.received += 1
            more = not self.ends or self.received < len(self.pieces)
            return {"type": "http.request", "body": piece, "more_body": more}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: App) -> "Exchange":
        await app(self.scope, self.receive, self.send)
        # Some of the applications that tests make up answer an error with a body that is no error's.
        if self.sent and b'"error"' in self.body:
            CODES.look_at("", self.status, self.headers, self.body)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        pairs = [(name.decode(), value.decode()) for name, value in self.sent[0]["headers"]]
        assert len(dict(pairs)) == len(pairs), f"a header is there twice: {pairs}"
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)
