"""Keeps the arriving bytes of a body, and wakes who waits for them.

`Body` overrides private methods of gunicorn 27.0; `tests/test_worker.py` fails when they change.
"""

# mypy: disallow-untyped-calls=False

import asyncio
import fcntl
import struct
import termios

from gunicorn.asgi.protocol import BodyReceiver

# A client must take at least this many bytes per second on average, measured over SECONDS in which it had something to
# take.
LEAST_BYTES_PER_SECOND = 1024
SECONDS = 30.0


class Pace:
    """Measures how fast the client of a connection takes what is written. It is stalled while the operating system
    accepts no more bytes, and the server then writes nothing more to it.
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
        self._timer = self._loop.call_later(SECONDS - self._waited, self._judge)

    def emptied(self) -> None:
        self.stop()
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._look()
        if self._taken < LEAST_BYTES_PER_SECOND * SECONDS:
            self._transport.abort()
            return
        self._waited, self._taken = 0.0, 0
        self.stalled()

    def _look(self) -> None:
        self._waited += self._loop.time() - self._since
        self._taken += self._left - self._to_take()

    def _to_take(self) -> int:
        """Return how many bytes the client's machine has not confirmed. This includes the operating system's buffer,
        which is large and accepts more only when a third of it has left.
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
    """An asyncio.Event for one waiter, without the 700 bytes of a queue of waiters."""

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
        # This method replaces gunicorn's. It frees the chunks, and a cancelled wait does not count as a client that
        # left.
        self._chunks = ()  # type: ignore[assignment]
        if not self.protocol._closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
