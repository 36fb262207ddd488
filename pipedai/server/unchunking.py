"""Parses chunked bodies in small pieces, so that the event loop has time for other connections in between.

The parser takes as long for a chunk of one byte as for one of a kilobyte, so 16 KiB of tiny chunks take 5 ms.
"""

import asyncio
from collections import deque
from typing import Protocol

# The parser works for at most this many seconds at a time. Afterwards the event loop gets at least as much time for
# everything else.
TURN_SECONDS = 0.002


class Chunked(Protocol):
    """The methods that a connection with a chunked body must have."""

    def parse_some(self) -> bool:
        """Parse a small piece of the received part of the body, and return whether more of it is left to parse."""


class Unchunking:
    """Parses the received parts of chunked bodies, one small piece of one connection after another."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Chunked] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, connection: Chunked) -> None:
        """Call the connection's `parse_some` until it has nothing left to parse. Don't add a connection twice."""
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
