"""Accepts connections on the loopback interface, and lets only requests pass that are meant for this gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import responses as phrases

import h11

from pipedai_worker.gateway import limits
from pipedai_worker.gateway.upstream import JSON

log = logging.getLogger(__name__)

# Matches control characters, because h11 accepts them in the value of a header.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadRequest(Exception):  # noqa: N818 - carries the answer
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Request:
    """One HTTP request. The names of its headers are in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        found = [value for one, value in self.headers if one == name]
        return found[0] if len(found) == 1 else None

    def has(self, name: str) -> bool:
        return any(one == name for one, _ in self.headers)


class Wire:
    """The HTTP of one connection: its requests come one after the other, each with its answer before the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.LARGEST_HEAD)

    async def read_head(self) -> Request | None:
        """Return the next request, without its body; None when the connection ends. Raises BadRequest."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None
        head = await self._next()
        if not isinstance(head, h11.Request):
            return None
        if head.http_version != b"1.1":
            raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if any(_CONTROL.search(value) for _, value in head.headers):
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers)
        return Request(head.method.decode(), head.target.decode("latin-1"), headers, b"")

    async def read_body(self, request: Request, take: Callable[[int], None]) -> Request | None:
        """Return the request with its body; None when the client has closed the connection. Raises BadRequest."""
        if request.has("content-length"):
            if request.has("transfer-encoding"):
                raise BadRequest(HTTPStatus.BAD_REQUEST)
            take(int(request.header("content-length") or 0))
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self.write(go_on)
        body = bytearray()
        while isinstance(event := await self._next(), h11.Data):
            take(len(body) + len(event.data))
            body += event.data
        return replace(request, body=bytes(body)) if isinstance(event, h11.EndOfMessage) else None

    async def _next(self) -> h11.Event | None:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                # Reads only what fits beside the part of an incomplete head that h11 already holds.
                data = await self._reader.read(
                    limits.LARGEST_HEAD + 1 - len(self._http.trailing_data[0])
                )
                if not data:
                    return None
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint) from None
        return event if isinstance(event, h11.Event) else None

    async def write(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()


class Answer:
    """Writes the answer to one request: either whole, by `send()`, or as a stream of pieces, each sent at once."""

    def __init__(self, wire: Wire, client: _Connection) -> None:
        self._wire = wire
        self.client = client
        self.begun = False

    async def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        """Send a whole answer, whose body is JSON. `close` tells the client that the connection ends with it."""
        sent = {"Content-Length": str(len(body)), **(headers or {})}
        if body:
            sent["Content-Type"] = JSON
        if close:
            sent["Connection"] = "close"
        await self._wire.write(self._head(status, sent), h11.Data(data=body), h11.EndOfMessage())

    async def begin_events(self, status: int, headers: dict[str, str]) -> None:
        kind = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform"}
        await self._wire.write(self._head(status, {**kind, **headers}))

    def _head(self, status: int, headers: dict[str, str]) -> h11.Response:
        self.begun = True
        reason = phrases.get(status, "Unknown")
        return h11.Response(status_code=status, headers=list(headers.items()), reason=reason)

    async def write(self, piece: bytes) -> None:
        await self._wire.write(h11.Data(data=piece))

    async def end(self) -> None:
        await self._wire.write(h11.EndOfMessage())


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
        # How many bytes of request bodies may still be taken into memory.
        self._room = limits.MOST_HELD
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
        wire = Wire(connection.reader, writer)
        try:
            with connection.time_limit():
                head = await wire.read_head()
            while head is not None:
                self._admit(connection, head)
                with self._memory() as take:
                    with connection.time_limit():
                        request = await wire.read_body(head, take)
                    if request is None:
                        return
                    await self._handler(request, Answer(wire, connection))
                    connection.expected = False
                head = await wire.read_head()
        except BadRequest as bad:
            self._clients.discard(connection)
            self._strangers[connection] = None
            await Answer(wire, connection).send(bad.status, close=True)
            await _linger(connection.reader, writer)

    @contextlib.contextmanager
    def _memory(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves a number of bytes for a request's body, or raises BadRequest."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > limits.LARGEST_REQUEST:
                raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if size - taken > self._room:
                raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE)
            if size > taken:
                self._room -= size - taken
                taken = size

        try:
            yield take
        finally:
            self._room += taken

    def _admit(self, connection: _Connection, head: Request) -> None:
        """Count a client's connection. Raises BadRequest for a web page, a wrong path, or one client too many."""
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
        # The task that serves the connection. It is canceled if the client leaves while it is `expected` to wait.
        self._task: asyncio.Task[None] | None = None
        self._gone = self.expected = False

    def expect(self) -> None:
        """Have the connection's task canceled if its client leaves. Raises ConnectionError if it has left."""
        if self._gone:
            raise ConnectionError
        self.expected = True

    def _leave(self) -> None:
        """Note that the client has left. The task goes on if the client waits for no answer, as with a notification."""
        self._gone = True
        if self.expected and self._task is not None:
            self._task.cancel()

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
        self._task = asyncio.get_running_loop().create_task(self._serve(writer))

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
        self._leave()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._listener.closed(self)
        self._leave()

    def abort(self) -> asyncio.Task[None] | None:
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        return self._task
