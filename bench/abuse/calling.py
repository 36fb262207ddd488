"""Calls at any moment, each with a client's patience, on as many connections as that takes."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from bench.abuse.timed import Timed
from bench.async_client import AsyncConnection
from bench.failure import BenchFailed
from bench.http_client import Answer

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
# A poll may be held for half a minute before it is answered.
_LONGEST_ANSWER_SECONDS = 2 * PATIENCE_SECONDS
# Well below the time after which a server closes a connection on which nothing comes.
_KEPT_SECONDS = 10.0


class GaveUp(Exception):  # noqa: N818
    """A call failed, which has been noted."""


class Calls:
    """`timed` has how long each call took, from the moment at which it was due."""

    def __init__(self, port: int) -> None:
        self.timed: list[Timed] = []
        self._port = port
        self._free: list[tuple[float, AsyncConnection]] = []

    async def call(self, kind: str, due: float, sent: bytes) -> Answer:
        """The answer, which is a success. Raises GaveUp."""
        return await self.timing(kind, due, self._successful(sent))

    async def timing(self, kind: str, due: float, what: Awaitable[T]) -> T:
        """Wait for something, with patience from its due moment on, and note how long it took. Raises GaveUp."""
        failure = None
        try:
            async with asyncio.timeout(max(0.0, due + PATIENCE_SECONDS - time.monotonic())):
                return await what
        except TimeoutError:
            failure = f"no answer in {PATIENCE_SECONDS:g} s"
        except (OSError, BenchFailed) as error:
            failure = str(error) or type(error).__name__
        finally:
            self.timed.append(Timed(kind, due, time.monotonic() - due, failure))
        raise GaveUp

    async def answer(self, sent: bytes) -> Answer | None:
        """The answer, whatever it is; None if none came."""
        try:
            async with asyncio.timeout(_LONGEST_ANSWER_SECONDS):
                return await self._exchange(sent)
        except (OSError, BenchFailed):  # TimeoutError is an OSError
            return None

    async def _successful(self, sent: bytes) -> Answer:
        answer = await self._exchange(sent)
        if not 200 <= answer.status < 300:
            raise BenchFailed(f"{answer.status} {answer.body[:100].decode(errors='replace')}")
        return answer

    async def _exchange(self, sent: bytes) -> Answer:
        connection = await self._connection()
        try:
            answer = await connection.exchange(sent)
        except BaseException:
            connection.close()
            raise
        self._free.append((time.monotonic(), connection))
        return answer

    async def _connection(self) -> AsyncConnection:
        while self._free:
            since, connection = self._free.pop()
            if time.monotonic() - since < _KEPT_SECONDS:
                return connection
            connection.close()
        return await AsyncConnection.open(self._port)
