"""Divides a limited number of places among waiting requests. Groups of requests take turns (SPEC §19).

A place is a share of something scarce. For example, it is the memory for one password hash, or the permission to ask an
endpoint.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager


class Turn:
    """One request's turn: it waits for the places that the request needs, has them, and gives them back.

    A place is a share of something scarce. For passwords it is the memory of one hash with today's settings, and a hash
    that needs twice as much memory needs two places. For waiting polls and event streams it is the permission to ask
    their view for news.
    """

    __slots__ = ("granted", "group", "places", "refused", "wake")

    def __init__(self, group: Hashable, places: int, wake: Callable[[], None]) -> None:
        self.group = group
        self.places = places
        # A function that is called when a waiting turn gets its places or is refused.
        self.wake = wake
        self.granted = False
        self.refused = False


class Turns:
    """Gives `places` places to requests. A request belongs to a group, such as a workspace, and groups take turns.

    After a group has got a turn, each other waiting group gets one before that group's next. So a thousand requests of
    one group delay a request of another group by a single turn. The turns of one group keep their order. If the next
    turn needs more places than are free, all later turns wait behind it, because otherwise a request for two places
    might never find two free. At most `most_waiting` turns may wait in all, and `most_of_a_group` of one group; None
    means any number. Everything here runs in the event loop.
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
        # The waiting turns, by the group of their request, such as its workspace. The first group gets the next turn.
        self._queues: OrderedDict[Hashable, deque[Turn]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, group: Hashable) -> AsyncIterator[None]:
        """Waits for one place, such as the permission to ask a view, and holds it until the `with` block ends.

        Use it only with Turns that let any number of turns wait, because it does not notice that a turn was refused.
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
        """Asks for places for a request of a group, and returns its turn.

        The turn has its places at once, or waits for them, or is refused because too many turns wait. `wake` is called
        when a waiting turn gets its places or is refused. The caller must call `leave` with the turn in every case.
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
        """Ends a turn and frees its places.

        Every turn must be ended, also one that still waits or that was refused.
        """
        if turn.granted:
            turn.granted = False
            self.free += turn.places
        elif not turn.refused:
            self._withdraw(turn)
        turn.refused = True
        self._grant()

    def _refuse_one(self) -> None:
        """Refuses one waiting turn, because too many wait.

        It is the newest turn of the group that has the most waiting turns.
        """
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
        """Return the waiting turn that gets its places next, even if too few are free now, or None if no turn waits."""
        return next((queue[0] for queue in self._queues.values()), None)
