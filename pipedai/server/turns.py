"""Divides permits, shares of something scarce such as threads, among waiting requests, whose groups take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import RLock


@dataclass(slots=True, eq=False)
class Turn:
    group: Hashable
    permits: int
    wake: Callable[["Turn"], object]
    granted: bool = False
    refused: bool = False


class Turns:
    """Gives permits to requests, whose groups take turns: after a turn of one group, every other waiting group gets a
    turn before it gets another. So a thousand requests of one group delay another group by a single turn. If the next
    turn needs more permits than are free, all later turns wait behind it.

    A group holds at most `most_held` permits. All groups for which `are_one` is true hold no more together, and each of
    them leaves the others of them as many as all of them leave to everybody else. At most `most_waiting` turns wait,
    and `most_of_a_group` of one group; None means any number.
    """

    def __init__(
        self,
        permits: int,
        *,
        most_held: int | None = None,
        are_one: Callable[[Hashable], bool] = lambda _: False,
        most_waiting: int | None = None,
        most_of_a_group: int | None = None,
    ) -> None:
        self.permits = self.free = permits
        self.waiting = 0
        self._most_held = permits if most_held is None else most_held
        self._are_one = are_one
        # How many permits the groups hold that `are_one`.
        self._held_as_one = 0
        self._most_waiting = most_waiting
        self._most_of_a_group = most_of_a_group
        # How many permits each group holds.
        self._held: Counter[Hashable] = Counter()
        # The waiting turns, by the group of their request, such as its workspace. The first group gets the next turn.
        self._queues: OrderedDict[Hashable, deque[Turn]] = OrderedDict()
        # Threads also call `ask` and `leave`. The lock is reentrant, because a `wake` under it may call them too.
        self._lock = RLock()

    @asynccontextmanager
    async def turn(self, group: Hashable) -> AsyncIterator[None]:
        """Holds a permit in the block. Use it only if any number of turns may wait, because it notices no refusal."""
        granted = asyncio.Event()
        turn = self.ask(group, 1, wake=lambda _: granted.set())
        try:
            await granted.wait()
            yield
        finally:
            self.leave(turn)

    def ask(self, group: Hashable, permits: int, *, wake: Callable[[Turn], object]) -> Turn:
        """Asks for permits, and returns a turn that has them, waits for them, or is refused because too many wait. When
        this changes, `wake` is called with the turn, under the lock. The caller must call `leave` in every case.
        """
        turn = Turn(group, min(permits, self.permits), wake)
        with self._lock:
            most = self._most_of_a_group
            if most is not None and len(self._queues.get(group, ())) >= most:
                self._refuse(turn)
                return turn
            if not self._queues and self._fits(turn) and turn.permits <= self.free:
                self._give(turn)
                return turn
            self._queues.setdefault(group, deque()).append(turn)
            self.waiting += 1
            if self._most_waiting is not None and self.waiting > self._most_waiting:
                # The newest turn of the group that has the most waiting turns makes room.
                newest = max(self._queues.values(), key=len)[-1]
                self._withdraw(newest)
                self._refuse(newest)
            self._grant()
        return turn

    def leave(self, turn: Turn) -> None:
        """Ends a turn and frees its permits. The turn may also still wait, or have been refused."""
        with self._lock:
            if turn.granted:
                turn.granted = False
                self.free += turn.permits
                self._held[turn.group] -= turn.permits
                self._held_as_one -= turn.permits * self._are_one(turn.group)
                if not self._held[turn.group]:
                    del self._held[turn.group]
            elif not turn.refused:
                self._withdraw(turn)
            turn.refused = True
            self._grant()

    def _refuse(self, turn: Turn) -> None:
        turn.refused = True
        turn.wake(turn)

    def _withdraw(self, turn: Turn) -> None:
        queue = self._queues[turn.group]
        queue.remove(turn)
        self.waiting -= 1
        if not queue:
            del self._queues[turn.group]

    def _fits(self, turn: Turn) -> bool:
        held, most = self._held[turn.group] + turn.permits, self._most_held
        if self._are_one(turn.group):
            together = self._held_as_one + turn.permits
            return together <= most and held <= max(1, 2 * most - self.permits)
        return held <= most

    def _give(self, turn: Turn) -> None:
        self.free -= turn.permits
        self._held[turn.group] += turn.permits
        self._held_as_one += turn.permits * self._are_one(turn.group)
        turn.granted = True
        turn.wake(turn)

    def _grant(self) -> None:
        while (turn := self._next()) is not None and turn.permits <= self.free:
            self._withdraw(turn)
            if turn.group in self._queues:
                self._queues.move_to_end(turn.group)
            self._give(turn)

    def _next(self) -> Turn | None:
        """Returns the waiting turn that gets its permits next, even if too few are free now, or None."""
        return next((queue[0] for queue in self._queues.values() if self._fits(queue[0])), None)
