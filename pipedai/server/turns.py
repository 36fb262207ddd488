"""Turns for those who wait in one process: so many at once, and each group of them as often as any other (SPEC §19)."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """At most `at_once` have a turn at a time. Of those who wait, one of each group comes after the other, and inside a
    group whoever came first: a thousand of one group delay one of another by a single turn.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        # The groups that wait, the next one first; in each, those who wait, in the order in which they came.
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, group: Hashable) -> AsyncIterator[None]:
        """Waits for a turn of the group's, and has it for as long as the block lasts."""
        await self._take(group)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, group: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it was given a turn in the same moment
            raise

    def _pass_on(self) -> None:
        """Gives a turn that is over to the next who waits, if anybody does."""
        while self._waiting:
            group, waiting = self._waiting.popitem(last=False)
            mine = waiting.popleft()
            if waiting:
                self._waiting[group] = waiting
            if not mine.cancelled():
                mine.set_result(None)
                return
        self._free += 1
