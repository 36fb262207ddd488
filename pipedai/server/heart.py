"""Writes the heartbeats of a web process in its event loop, so that a process that hangs writes none."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from pipedai import clocks
from pipedai.logs import get_logger

log = get_logger(__name__)

# A heartbeat that could not be written is tried again after at most this many seconds.
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: an SQL statement that a process runs every `every_seconds`, and that returns the database's time. It
    is canceled after `patience_seconds`. If its commit waits for a standby, the canceled heartbeat becomes visible to
    others, so the patience must be longer than the time for which a heartbeat counts.
    """

    every_seconds: float
    patience_seconds: float
    statement: str
    params: Mapping[str, Any]


_makers: list[Callable[[], Beat]] = []


def register_beat(make: Callable[[], Beat]) -> None:
    """Adds a heartbeat to every web process, which calls `make` once. Call it in the module `ready`."""
    _makers.append(make)


class Heart:
    """Writes heartbeats while `run` runs. After a heartbeat that could not be written it awaits `failed`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncConnection]],
        failed: Callable[[], Awaitable[None]],
        makers: Sequence[Callable[[], Beat]] = _makers,
    ) -> None:
        self._makers = makers
        self._connect = connect
        self._after_failure = failed
        self._failing = False

    async def run(self) -> None:
        """Writes heartbeats until cancelled. After one that could not be written, the next uses a new connection."""
        async with asyncio.TaskGroup() as hearts:
            for make in self._makers:
                hearts.create_task(self._beat(make()))

    async def _beat(self, beat: Beat) -> None:
        while True:
            try:
                async with await self._connect() as connection:
                    while True:
                        async with asyncio.timeout(beat.patience_seconds):
                            asked = clocks.machine_now()
                            cursor = await connection.execute(beat.statement, beat.params)
                            (theirs,) = await cursor.fetchone() or (asked,)
                        clocks.of_this_process.compare(asked, theirs)
                        self._failing = False
                        await asyncio.sleep(beat.every_seconds)
            except Exception as error:
                self._report(error)
                await self._after_failure()
            await asyncio.sleep(min(beat.every_seconds, _AGAIN_SECONDS))

    def _report(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.warning("heartbeat.failed", error=type(error).__name__)
