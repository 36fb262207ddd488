"""Keeps the arriving bytes of a request's body, and wakes the code that waits for them.

`Body` overrides private methods of gunicorn 27.0, and `tests/test_worker.py` fails when gunicorn changes them.
"""

# mypy: disallow-untyped-calls=False

import asyncio

from gunicorn.asgi.protocol import BodyReceiver


class Signal:
    """A small asyncio.Event for a single waiter.

    It saves each connection the 700 bytes of an Event's queue of waiters.
    """

    __slots__ = ("_is_set", "_waiter")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Whether `wait` would return at once."""
        return self._is_set

    def set(self) -> None:
        """Wake the waiter, and let `wait` return at once until `clear` is called."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Unset the signal, so that the next call of `wait` waits until it is set again."""
        self._is_set = False

    async def wait(self) -> None:
        """Return when the signal is set, at once if it is set already."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Body(BodyReceiver):
    """Receives a request's body and, after the body, the news that the client has left."""

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
