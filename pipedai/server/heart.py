"""Writes the heartbeats of a web process from its event loop, so that a process whose loop hangs does not beat."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from pipedai.logs import get_logger

log = get_logger(__name__)

# A beat that takes longer has failed: a connection to a dead database may hang.
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A statement that says that the process lives. It runs by itself, every `every_seconds`."""

    every_seconds: float
    statement: str
    params: Mapping[str, Any]


_makers: list[Callable[[], Beat]] = []


def register_beat(make: Callable[[], Beat]) -> None:
    """Adds a heartbeat to those of web processes. Call it from `AppConfig.ready()`; `make` is called once a process."""
    _makers.append(make)


class Heart:
    """Writes all registered heartbeats as long as `run` runs."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection]]) -> None:
        self._connect = connect
        self._failing = False

    async def run(self) -> None:
        """Beat until cancelled. A beat that fails is left out, and the next one gets a new connection."""
        async with asyncio.TaskGroup() as hearts:
            for make in _makers:
                hearts.create_task(self._beat(make()))

    async def _beat(self, beat: Beat) -> None:
        connection: AsyncConnection | None = None
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    connection = connection or await self._connect()
                    await connection.execute(beat.statement, beat.params)
            except Exception as error:
                self._failed(error)
                if connection is not None:
                    await connection.close()
                    connection = None
            else:
                self._failing = False
            await asyncio.sleep(beat.every_seconds)

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.warning("heartbeat.failed", error=type(error).__name__)
