"""Receives the neighbour's webhooks and notes how late each came."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.abuse.timed import Timed
from bench.http_client import HOST, body_length

KIND = "webhook"

_PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.05


class Hooks:
    """A receiver that answers at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._expected: dict[str, float] = {}
        self._received: dict[str, float] = {}

    def expect(self, run_id: str) -> None:
        """Note that the webhook of this run has just been queued."""
        self._expected[run_id] = time.monotonic()

    @asynccontextmanager
    async def received(self) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        async with await asyncio.start_server(self._receive, HOST, self._port):
            yield

    async def all_received(self) -> None:
        """Wait until all expected webhooks have come, but not for ever."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._expected.keys() - self._received.keys() and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)

    def timed(self) -> list[Timed]:
        """Return how long each webhook took, from the end of the call that queued it."""
        now = time.monotonic()
        return [
            Timed(
                KIND,
                queued,
                max(0.0, self._received.get(run_id, now) - queued),
                None if run_id in self._received else "A webhook did not come.",
            )
            for run_id, queued in self._expected.items()
        ]

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(body_length(head))
        self._received.setdefault(json.loads(body)["runId"], time.monotonic())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
