"""What a waiting request hears while it waits: an Ear takes the notifications about its subjects, and ends the wait."""

import asyncio
from uuid import UUID

from pipedai.server.request_scope import ClientGone, Receive
from pipedai.server.ticket import (
    AskingTicket,
    EnvironmentStreamTicket,
    PollTicket,
    StreamTicket,
)

# The most changed things that a stream of an environment remembers between two answers. If there are more, it tells
# that anything may have changed.
MOST_THINGS = 1000


class Ear:
    """Belongs to one waiting request: remembers the notifications since it last asked, and ends its `wait`."""

    __slots__ = ("_alarm", "changed", "newest_poll")

    def __init__(self) -> None:
        self._alarm: asyncio.Timeout | None = None
        self.changed = False
        # The largest `order` of all polls of the worker that began while this request waits. A newer poll has a larger
        # order.
        self.newest_poll = 0

    def hear_change(self) -> None:
        self.changed = True
        self.wake()

    def hear_poll(self, order: int) -> None:
        """Remember a poll of the worker, and end the wait if it is the newest. `order` grows with newer polls."""
        if order > self.newest_poll:
            self.newest_poll = order
            self.wake()

    def hear_event(self) -> None:
        """Ignore a notification that the worker has a new event, because only event streams send events."""

    def hear_things(self, kind: str, ids: list[UUID]) -> None:
        """Ignore a notification that things of an environment changed, because only its streams tell of them."""

    def pour(self, ticket: PollTicket | StreamTicket | AskingTicket) -> None:
        self.changed = False

    def hear_again(self) -> None:
        self.hear_change()

    def wake(self) -> None:
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(0)

    async def wait(self, receive: Receive, seconds: float) -> None:
        """Return when `wake` is called or after `seconds`. Raises ClientGone when the client leaves or has left."""
        try:
            async with asyncio.timeout(seconds) as self._alarm:
                await receive()
            raise ClientGone
        except TimeoutError:
            pass
        finally:
            self._alarm = None


class StreamEar(Ear):
    __slots__ = ()

    @property
    def heard(self) -> bool:
        return self.changed

    def hear_event(self) -> None:
        self.hear_change()


class EventsEar(StreamEar):
    """The Ear of a stream whose events are read together with those of other streams, if only events are new."""

    __slots__ = ("has_events",)

    def __init__(self) -> None:
        super().__init__()
        # Whether there are new events, which the view need not be asked for.
        self.has_events = False

    @property
    def heard(self) -> bool:
        return self.changed or self.has_events

    def hear_event(self) -> None:
        self.has_events = True
        self.wake()

    def pour(self, ticket: PollTicket | StreamTicket | AskingTicket) -> None:
        super().pour(ticket)
        self.has_events = False


class ThingsEar(StreamEar):
    """The Ear of a stream of an environment. It remembers which things changed there, at most MOST_THINGS of them."""

    __slots__ = ("missed", "things")

    def __init__(self) -> None:
        super().__init__()
        self.things: set[tuple[str, UUID]] = set()
        # Whether changes may have been missed.
        self.missed = False

    def hear_things(self, kind: str, ids: list[UUID]) -> None:
        self.things.update((kind, id_) for id_ in ids)
        if len(self.things) > MOST_THINGS:
            self.things.clear()
            self.missed = True
        self.hear_change()

    def hear_again(self) -> None:
        self.missed = True
        self.hear_change()

    def pour(self, ticket: PollTicket | StreamTicket | AskingTicket) -> None:
        assert isinstance(ticket, EnvironmentStreamTicket)
        super().pour(ticket)
        ticket.changed |= self.things
        ticket.missed |= self.missed
        self.things.clear()
        self.missed = False
