"""What comes of a request's body on a connection, and how whoever waits for it is woken.

`Body` overrides private methods of gunicorn's 27.0 line; `tests/test_worker.py` pins them.
"""

# mypy: disallow-untyped-calls=False

import asyncio

from gunicorn.asgi.protocol import BodyReceiver


class Signal:
    """An asyncio.Event for one waiter: the queue of one for many takes 700 bytes of each connection, even empty."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiter: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Whether nobody need wait."""
        return self._is_set

    def set(self) -> None:
        """Wake the waiter, and let none wait until it is cleared."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Let who comes now wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Return once it is set."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Body(BodyReceiver):
    """What comes of a request's body, and then that its client leaves."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> None:
        """Keep what has come in one piece until it is asked for: of small chunks each would take ten times its size."""
        if not self._chunks:
            super().feed(chunk)
            return
        held = self._chunks[0]
        if not isinstance(held, bytearray):
            held = self._chunks[0] = bytearray(held)
        held += chunk
        self._buffered += len(chunk)

    async def _wait_for_disconnect(self) -> None:
        # gunicorn takes a wait that was cancelled for a client that left, and keeps the queue of pieces.
        self._chunks = ()  # type: ignore[assignment]
        if not self.protocol._closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
