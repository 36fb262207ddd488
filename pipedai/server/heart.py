"""Writes the heartbeats of a web process from its event loop, so that a process whose loop hangs does not beat."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from pipedai import clocks
from pipedai.logs import get_logger

log = get_logger(__name__)

# How soon a beat that failed is tried again.
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Beat:
    """A statement that says that the process lives, every `every_seconds`. It returns the database's time.

    A beat that takes longer than `patience_seconds` has failed and is canceled, because a connection to a dead database
    may hang. A commit that waits for a standby can't be undone: the cancel ends its wait, and the beat becomes visible.
    So the patience must be longer than the time for which a beat counts.
    """

    every_seconds: float
    patience_seconds: float
    statement: str
    params: Mapping[str, Any]


_makers: list[Callable[[], Beat]] = []


def register_beat(make: Callable[[], Beat]) -> None:
    """Adds a heartbeat to those of web processes. Call it from `AppConfig.ready()`; `make` is called once a process."""
    _makers.append(make)


class Heart:
    """Writes heartbeats as long as `run` runs: those that `makers` make, which are all registered ones by default.

    It awaits `failed` after each beat that failed: then other connections of this process may be dead too.
    """

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
        """Beat until cancelled. A beat that fails is left out, and the next one gets a new connection."""
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
