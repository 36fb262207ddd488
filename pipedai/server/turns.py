"""A queue for something scarce: so many places, handed out in turn to the addresses that wait for some."""

from collections import OrderedDict, deque

from pipedai.server.listen import Ear

# Who waits keeps a connection and a request's body in memory. More than this are served within seconds nowhere.
MOST_WAITING = 500
# More than an address may try to log in within a minute.
MOST_OF_AN_ADDRESS = 100


class Turn:
    """One request's, from when it asks for its places until it leaves."""

    __slots__ = ("address", "ear", "granted", "places", "refused")

    def __init__(self, address: str, places: int) -> None:
        self.address = address
        self.places = places
        # Woken when either of the two below becomes true.
        self.ear = Ear()
        self.granted = False
        self.refused = False


class Turns:
    """Hands `places` out: each address gets its next turn when every other one that waits has had one.

    The turns of one address come in the order in which they were asked for. Who is next waits until enough places are
    free, and nobody overtakes it: else a request for two would never see both free. All happens in the event loop.
    """

    def __init__(
        self,
        places: int,
        *,
        most_waiting: int = MOST_WAITING,
        most_of_an_address: int = MOST_OF_AN_ADDRESS,
    ) -> None:
        self.places = self.free = places
        self.waiting = 0
        self._most_waiting = most_waiting
        self._most_of_an_address = most_of_an_address
        # The addresses in the order of their next turns, each with its waiting turns.
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()

    def ask(self, address: str, places: int) -> Turn:
        """A turn that has its places already, or waits, or is refused since too many wait. It `leave`s in any case."""
        turn = Turn(address, min(places, self.places))
        if len(self._queues.get(address, ())) >= self._most_of_an_address:
            turn.refused = True
            return turn
        self._queues.setdefault(address, deque()).append(turn)
        self.waiting += 1
        if self.waiting > self._most_waiting:
            self._refuse_one()
        self._grant()
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
        """Makes room at the cost of the address that has most waiting: its newest turn is over."""
        turn = max(self._queues.values(), key=len)[-1]
        self._withdraw(turn)
        turn.refused = True
        turn.ear.wake()

    def _withdraw(self, turn: Turn) -> None:
        queue = self._queues[turn.address]
        queue.remove(turn)
        self.waiting -= 1
        if not queue:
            del self._queues[turn.address]

    def _grant(self) -> None:
        while self._queues:
            address, queue = next(iter(self._queues.items()))
            turn = queue[0]
            if turn.places > self.free:
                return
            self._withdraw(turn)
            if queue:
                self._queues.move_to_end(address)
            self.free -= turn.places
            turn.granted = True
            turn.ear.wake()
