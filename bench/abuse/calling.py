"""Makes calls at any moment, each with a client's patience, on as many connections as they need."""

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
# The service may hold a poll for half a minute before it answers.
_LONGEST_ANSWER_SECONDS = 2 * PATIENCE_SECONDS
# How long an idle connection is used again: well below the time after which the server closes it.
_KEPT_SECONDS = 10.0


class GaveUp(Exception):  # noqa: N818
    """A call failed. Whoever raises this has noted it."""


class Calls:
    """A client whose `timed` notes how long each call took, from the moment at which it was due."""

    def __init__(self, port: int) -> None:
        self.timed: list[Timed] = []
        self._port = port
        self._free: list[tuple[float, AsyncConnection]] = []

    async def call(self, kind: str, due: float, sent: bytes) -> Answer:
        """Send a request and return its successful answer. Raises GaveUp for any other."""
        return await self.timing(kind, due, self._successful(sent))

    async def timing(self, kind: str, due: float, what: Awaitable[T]) -> T:
        """Wait for `what` until a client would lose patience, and note how long it took since `due`. Raises GaveUp."""
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
        """Return the answer, whatever its status, or None if none came."""
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
