"""Hands out a limited number of places to waiting requests. Groups of requests take turns (SPEC §19)."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager


class Turn:
    """One request's turn: it waits for places, holds them, and gives them back.

    What a place is, the owner of the `Turns` decides: for the hashing of passwords, one thread that hashes. A request
    that must hash two passwords needs two places.
    """

    __slots__ = ("granted", "group", "places", "refused", "wake")

    def __init__(self, group: Hashable, places: int, wake: Callable[[], None]) -> None:
        self.group = group
        self.places = places
        # A function that is called when a turn that had to wait is granted or refused.
        self.wake = wake
        self.granted = False
        self.refused = False


class Turns:
    """Hands out places. A group gets its next turn when every other waiting group has had one.

    So a thousand requests of one group delay a request of another group by a single turn. The turns of one group keep
    their order. If the next turn needs more places than are free, the others wait behind it, because otherwise a
    request for two places might never find two free. Without limits any number of turns may wait. Everything here runs
    in the event loop.
    """

    def __init__(
        self,
        places: int,
        *,
        most_waiting: int | None = None,
        most_of_a_group: int | None = None,
    ) -> None:
        self.places = self.free = places
        self.waiting = 0
        self._most_waiting = most_waiting
        self._most_of_a_group = most_of_a_group
        # The waiting turns of each group. The group whose turn is next comes first.
        self._queues: OrderedDict[Hashable, deque[Turn]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, group: Hashable) -> AsyncIterator[None]:
        """Waits for one place, and holds it for as long as the block lasts.

        Use it only if the number of waiting turns has no limit, because it does not notice that a turn was refused.
        """
        granted = asyncio.Event()
        turn = self.ask(group, 1, wake=granted.set)
        try:
            if not turn.granted:
                await granted.wait()
            yield
        finally:
            self.leave(turn)

    def ask(self, group: Hashable, places: int, *, wake: Callable[[], None]) -> Turn:
        """Returns a turn that has its places, or waits for them, or is refused because too many turns wait.

        The caller must call `leave` with the turn in every case.
        """
        turn = Turn(group, min(places, self.places), wake)
        if not self._queues and turn.places <= self.free:
            self._give(turn)
            return turn
        most = self._most_of_a_group
        if most is not None and len(self._queues.get(group, ())) >= most:
            turn.refused = True
            return turn
        self._queues.setdefault(group, deque()).append(turn)
        self.waiting += 1
        if self._most_waiting is not None and self.waiting > self._most_waiting:
            self._refuse_one()
        self._grant()
        return turn

    def leave(self, turn: Turn) -> None:
        """Ends a turn, whether it waits, has its places or is refused. Its places become free."""
        if turn.granted:
            turn.granted = False
            self.free += turn.places
        elif not turn.refused:
            self._withdraw(turn)
        turn.refused = True
        self._grant()

    def _refuse_one(self) -> None:
        """Refuses a turn, because too many wait: the newest of the group (such as an address) with most of them."""
        turn = max(self._queues.values(), key=len)[-1]
        self._withdraw(turn)
        turn.refused = True
        turn.wake()

    def _withdraw(self, turn: Turn) -> None:
        queue = self._queues[turn.group]
        queue.remove(turn)
        self.waiting -= 1
        if not queue:
            del self._queues[turn.group]

    def _give(self, turn: Turn) -> None:
        self.free -= turn.places
        turn.granted = True

    def _grant(self) -> None:
        while (turn := self._next()) is not None and turn.places <= self.free:
            self._withdraw(turn)
            if turn.group in self._queues:
                self._queues.move_to_end(turn.group)
            self._give(turn)
            turn.wake()

    def _next(self) -> Turn | None:
        """Return the turn that comes next, even if too few places are free for it, or None if no turn waits."""
        return next((queue[0] for queue in self._queues.values()), None)
