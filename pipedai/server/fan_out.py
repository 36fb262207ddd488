"""Reads new events once for all streams of a process that wait for them, and gives each stream its own.

Without it, each stream would send a whole request through Django for each call of a worker.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from pipedai.logs import get_logger
from pipedai.server.ticket import Piece, ReadTogether

log = get_logger(__name__)

# Streams that are woken within this time share one statement.
GATHER_SECONDS = 0.2
# One statement reads for at most so many streams that are not equally far, so that its answer stays small.
MOST_TOGETHER = 100


Pieces = dict[tuple[UUID, int], Piece]
# Runs a function in one of the threads that serve requests.
InThread = Callable[[Callable[[], Pieces]], Awaitable[Pieces]]


class FanOut:
    """Collects what streams want for GATHER_SECONDS, reads it in one statement, and hands each stream its piece.

    Streams that have sent equally much of one subject get the same bytes. One reading is under way at a time, so
    streams hold one thread at most, and nothing is kept after it was handed out.
    """

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        # The streams that wait for the next reading, by the function that reads, and by their subject and the number
        # of the last event that they have sent.
        self._wanted: dict[ReadTogether, dict[tuple[UUID, int], asyncio.Future[Piece | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def piece(self, read: ReadTogether, subject: UUID, after: int) -> Piece | None:
        """Return the events of a subject after a number, or None if they could not be read."""
        waiting = self._wanted.setdefault(read, {})
        found = waiting.get((subject, after))
        if found is None:
            found = waiting[subject, after] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        # Several streams wait for the same piece, and one that ends must not cancel it for the others.
        return await asyncio.shield(found)

    async def _work(self) -> None:
        try:
            while self._wanted:
                await asyncio.sleep(GATHER_SECONDS)
                wanted, self._wanted = self._wanted, {}
                for read, waiting in wanted.items():
                    pairs = list(waiting)
                    for start in range(0, len(pairs), MOST_TOGETHER):
                        await self._read(read, pairs[start : start + MOST_TOGETHER], waiting)
        finally:
            self._task = None

    async def _read(
        self,
        read: ReadTogether,
        pairs: list[tuple[UUID, int]],
        waiting: dict[tuple[UUID, int], "asyncio.Future[Piece | None]"],
    ) -> None:
        pieces: Pieces | None = None
        try:
            pieces = await self._in_thread(partial(read, pairs))
        except Exception as error:
            log.warning("events could not be read for streams", error=type(error).__name__)
        for pair in pairs:
            waiting[pair].set_result(
                None if pieces is None else pieces.get(pair, Piece(b"", pair[1]))
            )
