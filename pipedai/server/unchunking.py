"""Parses chunked bodies in small pieces, so that the event loop has time for other connections.

A chunk of one byte takes the parser as long as a chunk of a kilobyte. 16 KiB of the smallest chunks take it 5 ms.
"""

import asyncio
from collections import deque
from typing import Protocol

# How long the parser works before the event loop gets at least the same time for everything else.
TURN_SECONDS = 0.002


class Chunked(Protocol):
    """A connection on which a chunked body arrives."""

    def parse_some(self) -> bool:
        """Parse a small piece of what has arrived, and return whether more is left."""


class Unchunking:
    """Lets the connections that have something to parse take turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Chunked] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, connection: Chunked) -> None:
        """Call the connection's `parse_some` until nothing is left. The connection must not have been added already."""
        self._waiting.append(connection)
        if self._next is None:
            self._next = self._loop.call_soon(self._work)

    def _work(self) -> None:
        began, spent = self._loop.time(), 0.0
        try:
            while self._waiting and spent < TURN_SECONDS:
                connection = self._waiting.popleft()
                if connection.parse_some():
                    self._waiting.append(connection)
                spent = self._loop.time() - began
        finally:
            again = bool(self._waiting)
            self._next = self._loop.call_later(spent, self._work) if again else None
