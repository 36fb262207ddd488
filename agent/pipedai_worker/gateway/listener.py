"""Takes the CLI's connections on the loopback interface, and lets only requests meant for this gateway pass."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from pipedai_worker.gateway import limits
from pipedai_worker.gateway.exchange import (
    Answer,
    BadRequest,
    Presence,
    Request,
    read_request,
)
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

Handler = Callable[[Request, Answer], Awaitable[None]]


class Listener:
    """Serves connections to one listening socket, each in a task of its own, until `close()`.

    When the client of a connection goes away, what it waits for is canceled.
    """

    def __init__(self, listening: socket.socket, handler: Handler) -> None:
        self._socket = listening
        self._handler = handler
        self._host = "{}:{}".format(*listening.getsockname())
        self._connections: set[_Connection] = set()
        # Those that are only read to their end.
        self._refused: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Begin to take connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, loop), sock=self._socket)

    async def close(self) -> None:
        """Close every connection, and wait until what was done for it has ended."""
        if self._server is not None:
            self._server.close()
        tasks = [connection.abort() for connection in self._connections | self._refused]
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    async def serve(self, connection: _Connection, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        presence = connection.presence
        crowded = len(self._connections) >= limits.MOST_CONNECTIONS
        self._connections.add(connection)
        try:
            while True:
                request = await read_request(connection.reader, writer)
                if request is None:
                    return
                status = HTTPStatus.SERVICE_UNAVAILABLE if crowded else self._refusal(request)
                if status is not None:
                    raise BadRequest(status)
                await self._handler(request, Answer(writer, presence))
                presence.finished()
                if (request.header("connection") or "").lower() == "close":
                    return
        except BadRequest as bad:
            self._refused.add(connection)
            self._connections.discard(connection)
            await Answer(writer, presence).send(bad.status, close=True)
            await _linger(connection.reader, writer)
        finally:
            self._connections.discard(connection)
            self._refused.discard(connection)

    def _refusal(self, request: Request) -> int | None:
        """Return the status that refuses a request, which a page in a browser may have sent; None to let it pass."""
        if request.has("origin"):
            return HTTPStatus.FORBIDDEN
        if request.header("host") != self._host:
            return HTTPStatus.MISDIRECTED_REQUEST
        return None


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Throw away what a refused client still sends, for a while."""
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_read_to_end(reader), limits.LINGER_SECONDS)


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(limits.LARGEST_HEAD):
        pass


class _Connection(asyncio.StreamReaderProtocol):
    """One connection, which notices at once that the client has gone."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = asyncio.StreamReader(limit=limits.LARGEST_HEAD, loop=loop)
        super().__init__(self.reader, self._connected, loop=loop)
        self._listener = listener
        self._writer: asyncio.StreamWriter | None = None
        self.presence = Presence()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection. Its small pieces are sent at once, which asyncio does for some sockets only."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def _connected(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.presence.task = asyncio.get_running_loop().create_task(self._serve(writer))

    async def _serve(self, writer: asyncio.StreamWriter) -> None:
        try:
            await self._listener.serve(self, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        except Exception:
            log.exception("the gateway failed to answer a request")
            writer.transport.abort()
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    def eof_received(self) -> bool:
        """Take that the client sends no more. The transport stays open until its task has ended."""
        super().eof_received()
        self.presence.leave()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Take that the connection is broken."""
        super().connection_lost(exc)
        self.presence.leave()

    def abort(self) -> asyncio.Task[None] | None:
        """Close the connection, whatever is done for it. Return its task."""
        task = self.presence.task
        if task is not None:
            task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        return task
