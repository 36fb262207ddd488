"""gunicorn's ASGI worker and its connections, with JSON errors, deadlines, memory limits and a prompt stop.

`Protocol`, `Body` and `Worker` override private methods of gunicorn 27.0.
`tests/test_worker.py` fails when these change.
"""

# mypy: disallow-untyped-calls=False

import asyncio
import ctypes
import fcntl
import gc
import resource
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from gunicorn.asgi.protocol import _REASON_PHRASES, ASGIProtocol, BodyReceiver, FlowControl
from gunicorn.workers import gasgi

from pipedai.api.error_codes import code_of_status
from pipedai.ids import accept_or_make, current_request_id
from pipedai.server.lanes import STOP
from pipedai.server.outer import crash_answer, error_answer, log_request, phrase
from pipedai.server.request_scope import API, RawHeaders, client_address, complete_headers

# A client must take at least this many bytes per second, on average over STALL_SECONDS in which there are bytes for it.
LEAST_BYTES_PER_SECOND = 1024
STALL_SECONDS = 30.0


class Pace:
    """Measures how fast the client of a connection takes the written bytes, and ends a connection that is too slow. A
    connection is stalled while the operating system accepts no more bytes; the server then writes nothing more.
    """

    __slots__ = ("_left", "_loop", "_since", "_taken", "_timer", "_transport", "_waited")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        # _waited and _taken belong to the present period of measurement: for how many seconds the client had something
        # to take, and how many bytes it took in that time.
        self._waited = 0.0
        self._taken = 0
        # _since is the time of the last measurement, and _left the number of bytes that the client had still to take
        # then.
        self._since = 0.0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def stalled(self) -> None:
        self._since = self._loop.time()
        self._left = self._to_take()
        self._timer = self._loop.call_later(STALL_SECONDS - self._waited, self._judge)

    def emptied(self) -> None:
        self.stop()
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._look()
        if self._taken < LEAST_BYTES_PER_SECOND * STALL_SECONDS:
            self._transport.abort()
            return
        self._waited, self._taken = 0.0, 0
        self.stalled()

    def _look(self) -> None:
        self._waited += self._loop.time() - self._since
        self._taken += self._left - self._to_take()

    def _to_take(self) -> int:
        """Return how many bytes the client's machine has not confirmed. This includes the bytes in the operating
        system's buffer, which is large and accepts more only when a third of it has left.
        """
        buffered = self._transport.get_write_buffer_size()
        try:
            answer = fcntl.ioctl(
                self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
            )
        except OSError:
            # Some operating systems don't tell how many bytes their own buffer holds.
            return buffered
        return buffered + int(struct.unpack("i", answer)[0])


class Signal:
    """An asyncio.Event for a single waiter. It saves the 700 bytes of a queue of waiters."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Body(BodyReceiver):
    __slots__ = ()

    def feed(self, chunk: bytes) -> None:
        """Append the chunk to the bytes not read yet. A list of small chunks would take ten times their size."""
        if not self._chunks:
            super().feed(chunk)
            return
        held = self._chunks[0]
        if not isinstance(held, bytearray):
            held = self._chunks[0] = bytearray(held)
        held += chunk
        self._buffered += len(chunk)

    async def _wait_for_disconnect(self) -> None:
        # This method replaces gunicorn's. It frees the chunks, and does not take a cancelled wait for a client that has
        # left.
        self._chunks = ()  # type: ignore[assignment]
        if not self.protocol._closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


# This module replaces parts of gunicorn. See docs/decisions/fast-paths.md.

# A client must have sent its request's headers within this many seconds.
HEADER_SECONDS = 20.0
# How many seconds a refused client may go on sending. If we closed the connection while bytes are unread, the operating
# system would reset it and the client would lose the answer.
LINGER_SECONDS = 1.0
# The most bytes that one read takes from a connection. asyncio's own size is sixteen times as large.
READ_BYTES = 16 * 1024
# If this many received bytes of a connection are not used yet (a body that the application has not read, or the next
# request), the server stops reading from the connection.
UNREAD_BYTES = 64 * 1024
# The most bytes of a chunked body that are parsed at a time.
PARSED_BYTES = 2 * 1024

# gunicorn knows only the phrases of common statuses, and would call the others, such as 406, "Unknown".
_REASON_PHRASES.update({status.value: status.phrase for status in HTTPStatus})

_SENTENCES = {
    400: "The request is malformed.",
    408: "The request's headers did not arrive in time.",
    413: "The body is too large.",
    414: "The request line is too long.",
    431: "The request's headers are too large.",
    501: "This transfer coding is not supported.",
}


class Protocol(ASGIProtocol):
    """One client's connection, with our limits added to gunicorn's class."""

    __slots__ = (
        # gunicorn's attributes are listed too, so that a connection has slots for all of them. A dict of so many
        # attributes would take 1.6 KB for each connection.
        *vars(ASGIProtocol(SimpleNamespace(cfg=None, log=None, asgi=None))),
        "_answering",
        "_asked",
        "_closing",
        "_header_timer",
        "_lingering",
        "_pace",
        "_unparsed",
    )

    worker: "Worker"
    transport: asyncio.Transport
    _callback_parser: Any
    _request_ready: Signal
    _flow_control: FlowControl

    def __init__(self, worker: "Worker") -> None:
        super().__init__(worker)
        self._asked = False
        self._answering = False
        self._closing = False
        self._lingering = False
        self._header_timer: asyncio.TimerHandle | None = None
        self._max_buffer_size = UNREAD_BYTES
        # The received bytes that are not parsed yet: the rest of a chunked body, and perhaps the beginning of the next
        # request.
        self._unparsed = b""
        # Measures how fast the client takes the answer. It is None until the client first fails to take all bytes at
        # once.
        self._pace: Pace | None = None

    # --- Deadlines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.max_size = READ_BYTES  # type: ignore[attr-defined]
        # With this setting, code that sends an answer waits until the operating system has taken all of it. asyncio's
        # default lets the code go on while up to 64 KiB are left.
        self.transport.set_write_buffer_limits(high=0)
        self._request_ready = Signal()
        self._flow_control._is_writable_event = Signal(is_set=True)  # type: ignore[assignment]
        self.worker.connections.add(self)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        self._stop_awaiting_headers()
        if self._pace is not None:
            self._pace.stop()
        self._unparsed = b""
        super().connection_lost(exc)
        # The client has left, so code that waits to send more to it must wake up.
        self._flow_control.resume_writing()

    def _on_headers_complete(self) -> bool:
        self._stop_awaiting_headers()
        self._asked = True
        self._answering = False
        skip_body = bool(super()._on_headers_complete())
        self._body_receiver = Body(self._current_request, self)
        return skip_body

    def _keepalive_timeout(self) -> None:
        if self.has_partial_request():
            self._await_headers()
        else:
            super()._keepalive_timeout()

    def _await_headers(self) -> None:
        self._stop_awaiting_headers()
        self._header_timer = self.worker.loop.call_later(HEADER_SECONDS, self._headers_late)

    def _stop_awaiting_headers(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        if self.has_partial_request():
            self._send_error_response(HTTPStatus.REQUEST_TIMEOUT, "")
        self._close_transport()
        self._request_ready.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._pace is None:
            self._pace = Pace(self.worker.loop, self.transport)
        self._pace.stalled()

    def resume_writing(self) -> None:
        if self._pace is not None:
            self._pace.emptied()
        super().resume_writing()

    # --- Bodies in chunks

    def _feed_callback_parser(self, data: bytes) -> bool:
        while data:
            if self._unparsed or self._callback_parser._state == "chunked":
                if not self._unparsed:
                    self.worker.unchunking.add(self.parse_some)
                self._unparsed += data
                self._pause_reading()
                return True
            # The data may contain the beginning of a chunked body, so data that is not a body yet is parsed in small
            # pieces too.
            size = len(data) if self._callback_parser._state == "body" else PARSED_BYTES
            if not super()._feed_callback_parser(data[:size]):
                return False
            data = data[size:]
        return True

    def parse_some(self) -> bool:
        data, self._unparsed = self._unparsed[:PARSED_BYTES], self._unparsed[PARSED_BYTES:]
        if self._callback_parser is None or not super()._feed_callback_parser(data):
            self._unparsed = b""
        if not self._unparsed:
            self._maybe_resume_reading()
        return bool(self._unparsed)

    def _maybe_resume_reading(self) -> None:
        if not self._unparsed:
            super()._maybe_resume_reading()

    def _handle_h1c_exception(self, exc: Exception) -> bool:
        # Python raises ValueError when it reads a number of more than 4,300 digits, such as the length in a
        # Content-Length header. gunicorn would answer with a 500, although the client is at fault.
        if not isinstance(exc, ValueError):
            return bool(super()._handle_h1c_exception(exc))
        self._send_error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "")
        self._close_transport()
        return True

    # --- Stopping

    def is_waiting(self) -> bool:
        return bool(self._awaiting_request)

    def has_partial_request(self) -> bool:
        """Whether a request has begun to arrive and its headers are not complete."""
        parser = self._callback_parser
        return parser is not None and bool(parser._buffer or parser._state != "request_line")

    def is_idle(self) -> bool:
        """Whether the connection has served a request and now waits for another that may never come."""
        return self._asked and not self.has_partial_request()

    def close_waiting(self) -> None:
        self._close_transport()
        self._request_ready.set()

    # --- Answers that gunicorn gives itself

    def _is_websocket_upgrade(self, _request: Any) -> bool:
        # We serve no WebSockets, so a request for an upgrade is answered like any other (RFC 9110 §7.8).
        return False

    def _send_response_start(
        self, status: int, headers: RawHeaders, *args: Any, **kwargs: Any
    ) -> None:
        self._answering = True
        self._closing = (b"connection", b"close") in headers
        super()._send_response_start(status, headers, *args, **kwargs)

    async def _serve_http_request(self, *args: Any) -> bool:
        # gunicorn would run each request in an asyncio task of its own, so that the application could do more work
        # after its answer while the connection serves the next request. Our application does nothing after its answer,
        # so no task is made. gunicorn also ignores the application's header `Connection: close`, which is obeyed here.
        return bool(await self._handle_http_request(*args)) and not self._closing

    def _send_error_response(
        self, status: int, _message: str, _extra_headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        # gunicorn's message is left out, because it may quote private parts of the request. If an answer has begun
        # already, no error answer is sent, because the client would take it for the answer to its next request.
        if self._closed or (self._answering and self._current_request is not None):
            return
        parsed = getattr(self._callback_parser, "_headers_list", ())
        sent = [value.decode("latin-1") for name, value in parsed if name == b"x-request-id"]
        request_id = accept_or_make(sent[0] if len(sent) == 1 else None)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            headers, body = crash_answer(request_id, close=True)
        else:
            sentence = _SENTENCES.get(status, phrase(status))
            headers, body = error_answer(sentence, code=code_of_status(status), close=True)
        headers = complete_headers(
            [*headers, (b"date", formatdate(usegmt=True).encode())],
            request_id=request_id,
            path=API,
            production=settings.PRODUCTION,
        )
        lines = [f"HTTP/1.1 {status} {phrase(status)}".encode()]
        lines += [name.title() + b": " + value for name, value in headers]
        self._safe_write(b"\r\n".join([*lines, b"", body]))
        self._lingering = True
        self._log_error(status, request_id, len(body))

    def _close_transport(self) -> None:
        if self._closed or not self._lingering:
            super()._close_transport()
            return
        self._closed = True
        # Without a parser, the connection reads and drops everything that still arrives.
        self._callback_parser = None
        with suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self.worker.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _log_error(self, status: int, request_id: str, body_bytes: int) -> None:
        peer = self.transport.get_extra_info("peername")
        token = current_request_id.set(request_id)
        log_request(
            status=status,
            seconds=0.0,
            body_bytes=body_bytes,
            client=client_address(peer[0] if peer else None, None, ()),
        )
        current_request_id.reset(token)


# A process that stops waits this many seconds for requests whose headers have arrived only in part, and for the first
# request on each new connection.
STOP_HEADER_SECONDS = 0.5
# The parser works for at most this many seconds at a time. Afterwards the event loop gets at least as much time for
# everything else.
TURN_SECONDS = 0.002
OPEN_FILES = 65_536
LARGE_BLOCK_BYTES = 256 * 1024
# A thread that computes lets another one go on after so many seconds. A request waits some ten times, each time after
# it has asked the database, so with Python's 5 ms one tenant's long computation would show in all others' answers.
SWITCH_SECONDS = 0.001
KEPT_FREE_BYTES = 16 * 1024 * 1024
# The numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _allow_many_connections() -> None:
    """Raise the limit of open files, often 1,024: each connection, and so each waiting poll, takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _give_large_blocks_back() -> None:
    """Make the C library return large blocks to the system when they are freed. By default it kept hundreds of
    megabytes. As it then no longer adapts how much it keeps for small blocks, that is set too.
    """
    # Only the C library glibc has the function mallopt.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


class Unchunking:
    """Parses chunked bodies in small pieces, connection after connection, because 16 KiB of one-byte chunks keep the
    event loop busy for 5 ms.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], bool]] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, parse_some: Callable[[], bool]) -> None:
        """Call a connection's `parse_some` until it has nothing left to parse. Don't add a connection twice."""
        self._waiting.append(parse_some)
        if self._next is None:
            self._next = self._loop.call_soon(self._work)

    def _work(self) -> None:
        began, spent = self._loop.time(), 0.0
        try:
            while self._waiting and spent < TURN_SECONDS:
                parse_some = self._waiting.popleft()
                if parse_some():
                    self._waiting.append(parse_some)
                spent = self._loop.time() - began
        finally:
            again = bool(self._waiting)
            self._next = self._loop.call_later(spent, self._work) if again else None


class Worker(gasgi.ASGIWorker):
    """One web process: gunicorn's ASGI worker, which here makes connections with our class Protocol."""

    loop: asyncio.AbstractEventLoop
    unchunking: Unchunking

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Protocol] = set()

    def init_process(self) -> None:
        _allow_many_connections()
        _give_large_blocks_back()
        sys.setswitchinterval(SWITCH_SECONDS)
        # gunicorn's worker makes its connections with the class of this name, so the name is given to our class.
        gasgi.ASGIProtocol = Protocol  # type: ignore[attr-defined]
        super().init_process()

    def load_wsgi(self) -> None:
        # The collection of garbage is off during imports, because imports make no garbage, and the search for it takes
        # a seventh of the start's CPU time.
        gc.disable()
        super().load_wsgi()
        gc.enable()
        # Objects loaded so far stay until the process ends. Freezing them keeps garbage collections from walking over
        # them again and again, during which no request is served for tens of milliseconds.
        # See docs/decisions/fast-paths.md.
        gc.collect()
        gc.freeze()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        self.unchunking = Unchunking(self.loop)
        # gunicorn would leave asyncio's default of 100 connections that wait to be accepted, which is too few when all
        # workers of a site reconnect at once.
        create_server = partial(self.loop.create_server, backlog=self.cfg.backlog)
        self.loop.create_server = create_server  # type: ignore[method-assign]

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self._stop_waiting()

    async def _shutdown(self) -> None:
        self._stop_waiting()
        closing = self.loop.create_task(self._close_waiting())
        try:
            await super()._shutdown()
        finally:
            closing.cancel()

    def _stop_waiting(self) -> None:
        stop: Callable[[], None] | None = self.state.get(STOP)
        if stop is not None:
            stop()

    async def _close_waiting(self) -> None:
        """Close connections on which no request is being served, until all connections are closed."""
        patience = self.loop.time() + STOP_HEADER_SECONDS
        while True:
            for connection in list(self.connections):
                if connection.is_waiting() and (
                    connection.is_idle() or self.loop.time() > patience
                ):
                    connection.close_waiting()
            await asyncio.sleep(0.05)
