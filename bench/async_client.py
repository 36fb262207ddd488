"""The client of `bench.http_client` for loads that keep many connections in one process."""

import asyncio
from typing import Self

from bench.failure import BenchFailed
from bench.http_client import HOST, Answer, body_length


class AsyncConnection:
    """One connection that stays open and carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to the server."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def exchange(self, sent: bytes) -> Answer:
        """Send a request's bytes and return its answer, whatever that is. Raises BenchFailed if none comes."""
        self._writer.write(sent)
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            return Answer(head, await self._reader.readexactly(body_length(head)))
        except asyncio.IncompleteReadError:
            raise BenchFailed("The server closed a connection without an answer.") from None

    def close(self) -> None:
        """Close the connection, even if an answer has not come yet."""
        self._writer.close()
