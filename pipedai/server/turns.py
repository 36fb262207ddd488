"""A queue for something scarce: so many places, handed out in turn to the groups that wait for some (SPEC §19)."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager


class Turn:
    """One request's, from when it asks for its places until it leaves."""

    __slots__ = ("granted", "group", "places", "refused", "wake")

    def __init__(self, group: Hashable, places: int, wake: Callable[[], None]) -> None:
        self.group = group
        self.places = places
        # Called when either of the two below becomes true after the turn has had to wait.
        self.wake = wake
        self.granted = False
        self.refused = False


class Turns:
    """Hands `places` out: each group gets its next turn when every other one that waits has had one, so that a thousand
    of one group delay one of another by a single turn.

    The turns of one group come in the order in which they were asked for. Who is next waits until enough places are
    free, and nobody overtakes it: else a request for two would never see both free. Without the two limits any number
    may wait. All happens in the event loop.
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
        # The groups in the order of their next turns, each with its waiting turns.
        self._queues: OrderedDict[Hashable, deque[Turn]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, group: Hashable) -> AsyncIterator[None]:
        """Waits for one place, and has it for as long as the block lasts; for turns without limits."""
        granted = asyncio.Event()
        turn = self.ask(group, 1, wake=granted.set)
        try:
            if not turn.granted:
                await granted.wait()
            yield
        finally:
            self.leave(turn)

    def ask(self, group: Hashable, places: int, *, wake: Callable[[], None]) -> Turn:
        """A turn that has its places already, or waits, or is refused since too many wait. It `leave`s in any case."""
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
        return turn

    def leave(self, turn: Turn) -> None:
        """Ends a turn, whatever has become of it: its places are free again."""
        if turn.granted:
            turn.granted = False
            self.free += turn.places
        elif not turn.refused:
            self._withdraw(turn)
        turn.refused = True
        self._grant()

    def _refuse_one(self) -> None:
        """Makes room at the cost of the group that has most waiting: its newest turn is over."""
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
        while self._queues:
            group, queue = next(iter(self._queues.items()))
            turn = queue[0]
            if turn.places > self.free:
                return
            self._withdraw(turn)
            if queue:
                self._queues.move_to_end(group)
            self._give(turn)
            turn.wake()
