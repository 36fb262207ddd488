"""Parses the bodies that come in chunks a little at a time, so that they leave the event loop to others.

A chunk of one byte takes the parser as long as one of a kilobyte: 16 KiB of the smallest take it 5 ms.
"""

import asyncio
from collections import deque
from typing import Protocol

# How long it parses before the loop sees to everything else, for as long at least.
TURN_SECONDS = 0.002


class Chunked(Protocol):
    """A connection on which such a body comes."""

    def parse_some(self) -> bool:
        """Parse a small piece of what has come; whether more of it is left."""


class Unchunking:
    """The connections that have something to be parsed, each in its turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Chunked] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, connection: Chunked) -> None:
        """Have the connection's `parse_some` called until nothing is left. It must not be waiting already."""
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
