"""Accepts connections on the loopback interface, and lets only requests pass that are meant for this gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus

from pipedai_worker.gateway import limits
from pipedai_worker.gateway.exchange import Answer, BadRequest, Presence, Request, Room, Share, Wire
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

Handler = Callable[[Request, Answer], Awaitable[None]]


class Listener:
    """Serves the connections of one socket, each in a task that is canceled when its client leaves. Every program on
    the machine can connect; one is a client only after a request whose target satisfies `knows`.
    """

    def __init__(
        self, listening: socket.socket, knows: Callable[[str], bool], handler: Handler
    ) -> None:
        self._socket = listening
        self._knows = knows
        self._handler = handler
        self._host = "{}:{}".format(*listening.getsockname())
        self._clients: set[_Connection] = set()
        # The connections that are not (or no longer) known to be a client's, the oldest first.
        self._strangers: dict[_Connection, None] = {}
        self._room = Room(limits.MOST_HELD)
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        # With backlog=1 asyncio takes one connection at a time, and reads from those that it has before it takes the
        # next. Otherwise a crowd of strangers, taken all at once, would close a client that has sent its request.
        self._server = await loop.create_server(
            lambda: _Connection(self, loop), sock=self._socket, backlog=1
        )
        # Asyncio has told the system to hold only `backlog` connections that are not taken yet; this raises the number.
        self._socket.listen(limits.MOST_UNTAKEN)

    async def close(self) -> None:
        """Close every connection, and wait until the tasks that served them have ended."""
        if self._server is not None:
            self._server.close()
        tasks = [connection.abort() for connection in (*self._clients, *self._strangers)]
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def opened(self, connection: _Connection) -> None:
        self._strangers[connection] = None
        if len(self._strangers) > limits.MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()

    def closed(self, connection: _Connection) -> None:
        self._clients.discard(connection)
        self._strangers.pop(connection, None)

    async def serve(self, connection: _Connection, writer: asyncio.StreamWriter) -> None:
        presence, wire = connection.presence, Wire(connection.reader, writer)
        try:
            with connection.time_limit():
                head = await wire.read_head()
            while head is not None:
                self._admit(connection, head)
                with Share(self._room) as share:
                    with connection.time_limit():
                        request = await wire.read_body(head, share)
                    if request is None:
                        return
                    await self._handler(request, Answer(wire, presence))
                    presence.finished()
                head = await wire.read_head()
        except BadRequest as bad:
            self._clients.discard(connection)
            self._strangers[connection] = None
            await Answer(wire, presence).send(bad.status, close=True)
            await _linger(connection.reader, writer)

    def _admit(self, connection: _Connection, head: Request) -> None:
        """Count a connection as that of a client. Raises BadRequest for a request that a web page sends, one without
        the secret path, and that of one client too many.
        """
        if head.has("origin"):
            raise BadRequest(HTTPStatus.FORBIDDEN)
        if head.header("host") != self._host:
            raise BadRequest(HTTPStatus.MISDIRECTED_REQUEST)
        if not self._knows(head.target):
            raise BadRequest(HTTPStatus.NOT_FOUND)
        if connection not in self._clients:
            if len(self._clients) >= limits.MOST_CONNECTIONS:
                raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE)
            self._strangers.pop(connection, None)
            self._clients.add(connection)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Throw away what a refused client still sends, for a while."""
    # The client may have broken off the connection.
    with contextlib.suppress(OSError):
        writer.write_eof()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_read_to_end(reader), limits.LINGER_SECONDS)


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(limits.LARGEST_HEAD):
        pass


class _Connection(asyncio.StreamReaderProtocol):
    """One connection. It notices at once when its client leaves, even while a request is being answered."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = asyncio.StreamReader(limit=limits.LARGEST_HEAD, loop=loop)
        super().__init__(self.reader, self._connected, loop=loop)
        self._listener = listener
        self._loop = loop
        self._writer: asyncio.StreamWriter | None = None
        self.presence = Presence()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set TCP_NODELAY, which asyncio sets only for some sockets, so that small pieces are sent at once."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._listener.opened(self)

    @contextlib.contextmanager
    def time_limit(self) -> Iterator[None]:
        """Close the connection if the code in this context takes longer than REQUEST_SECONDS."""
        timer = self._loop.call_later(limits.REQUEST_SECONDS, self.abort)
        try:
            yield
        finally:
            timer.cancel()

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
        """Note that the client sends nothing more. The connection stays open until its task has ended."""
        super().eof_received()
        self.presence.leave()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._listener.closed(self)
        self.presence.leave()

    def abort(self) -> asyncio.Task[None] | None:
        task = self.presence.task
        if task is not None:
            task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        return task
