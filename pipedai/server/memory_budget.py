"""Counts the bytes that a process holds of requests not yet answered and of answers not yet sent (SPEC §19).

All of it happens in the event loop, except that threads ask whether a holding is overdrawn.
"""

from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.client_address import network_of
from pipedai.server.refusal import Refused

# The scope has the request's Holding under this key.
HOLDING = "pipedai.holding"

MIB = 1024 * 1024
# One address may hold a quarter of the budget: nobody can use all of it up against others.
ADDRESSES = 4
# A request that holds no more than this is small. The last eighth of the budget, and of each address's quarter, is for
# small ones alone: they go on while large ones have used up theirs.
SMALL_BYTES = 64 * 1024
_FOR_LARGE = 7 / 8


class MemoryBudget:
    """The bytes of one process."""

    def __init__(self, mebibytes: int = 48) -> None:
        self.used = 0
        self._total = mebibytes * MIB
        self._address_total = self._total // ADDRESSES
        self._by_address: dict[str, int] = {}

    def has_room(self, address: str, size: int, *, small: bool) -> bool:
        """Whether so many bytes more may be held for this address."""
        part = 1 if small else _FOR_LARGE
        return (
            self.used + size <= self._total * part
            and self._by_address.get(address, 0) + size <= self._address_total * part
        )

    def add(self, address: str, size: int) -> None:
        """Count bytes that are held from now on, or, if negative, no longer."""
        self.used += size
        held = self._by_address.get(address, 0) + size
        if held:
            self._by_address[address] = held
        else:
            self._by_address.pop(address, None)


class Holding:
    """What one request holds of the budget. Who works on the request keeps the holding until they leave it; when the
    last one leaves, everything goes back.
    """

    __slots__ = ("_at_end", "_budget", "_keepers", "_size", "address")

    def __init__(self, budget: MemoryBudget, client: str) -> None:
        self._budget = budget
        # What one subscriber has: the address itself, or the /64 of an IPv6 address.
        self.address = client if ":" not in client else network_of(client)
        self._size = 0
        self._keepers = 1
        self._at_end: list[Callable[[], None]] = []

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may be held."""
        small = self._size + size <= SMALL_BYTES
        return self._budget.has_room(self.address, size, small=small)

    def take(self, size: int) -> None:
        """Hold so many bytes more, if there is room or not."""
        if size:
            self._size += size
            self._budget.add(self.address, size)

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        self.take(-size)

    def give_all_back(self) -> None:
        """Hold nothing."""
        self.give_back(self._size)

    def is_overdrawn(self) -> bool:
        """Whether the process or the address holds more than it may: nothing else is to be begun for it then."""
        return not self._budget.has_room(self.address, 0, small=True)

    def keep(self) -> None:
        """Let nothing go back before one `leave` more."""
        self._keepers += 1

    def leave(self) -> None:
        """Give everything back, unless somebody else keeps it."""
        self._keepers -= 1
        if self._keepers:
            return
        self.give_all_back()
        while self._at_end:
            self._at_end.pop()()

    def at_end(self, then: Callable[[], None]) -> None:
        """Have this called when the last one leaves: the answer has been sent, or its client has gone."""
        self._at_end.append(then)


def room_for_answer(request: HttpRequest | Request, wanted: int) -> int:
    """How many bytes an answer should have: `wanted`, or SMALL_BYTES where so many could not be held at this moment.

    An endpoint whose answers may be large asks before it makes one, since to make it and refuse it costs as much as to
    send it. Under another server than ours there is always room.
    """
    holding: Holding | None = request.META.get("asgi.scope", {}).get(HOLDING)
    return wanted if holding is None or holding.has_room(wanted) else SMALL_BYTES


def overloaded(*, unread: bool) -> Refused:
    """The refusal of a request for which there is no room. Nothing of it was done."""
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too many bytes are under way at this moment: send the request again in a second.",
        unread=unread,
        code=ErrorCode.OVERLOADED,
        retry_after=1,
    )
