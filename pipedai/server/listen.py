"""Receives the database's notifications over one connection per process, and wakes the requests that wait for them."""

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

from psycopg import AsyncConnection, sql

from pipedai.logs import get_logger
from pipedai.server.asgi_types import Receive
from pipedai.server.refusal import ClientGone
from pipedai.server.ticket import EnvironmentStreamTicket, PollTicket, StreamTicket
from pipedai.wakeups import CHANGED, CHANNEL, EVENT, POLLING, POOL, RUNS, THINGS, WATCHED
from pipedai.watches import Watches

log = get_logger(__name__)

Connect = Callable[[], Awaitable[AsyncConnection]]

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
# A stream of an environment remembers at most so many changed things between two answers. If there are more, it tells
# that anything may have changed.
MOST_THINGS = 1000


class Ear:
    """Belongs to one waiting request, and remembers which notifications the database sent about its worker.

    It remembers those that came since the request last asked the endpoint. The request waits by calling `wait`, which a
    notification ends.
    """

    __slots__ = ("_alarm", "changed", "newest_poll")

    def __init__(self) -> None:
        self._alarm: asyncio.Timeout | None = None
        self.changed = False
        # The largest `order` of all polls of the worker that began while this request waits. A newer poll has a larger
        # order.
        self.newest_poll = 0

    def hear_change(self) -> None:
        """Remember that something about the worker changed, and end the wait. The request then asks again."""
        self.changed = True
        self.wake()

    def hear_poll(self, order: int) -> None:
        """Remember that a poll of the worker began, and end the wait if that poll is the newest yet.

        `order` is larger for a newer poll.
        """
        if order > self.newest_poll:
            self.newest_poll = order
            self.wake()

    def hear_event(self) -> None:
        """Ignore a notification that the worker has a new event, because only event streams send events."""

    def hear_things(self, kind: str, ids: list[UUID]) -> None:
        """Ignore a notification that things of an environment changed, because only its streams tell of them."""

    def pour(self, ticket: PollTicket | StreamTicket) -> None:
        """Forget what was heard, because the view is about to be asked. A subclass moves it into the ticket."""
        self.changed = False

    def hear_again(self) -> None:
        """Note that notifications arrive again, after some may have been lost."""
        self.hear_change()

    def wake(self) -> None:
        """End the wait, if the request is waiting. Its code then finds out why it was woken."""
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
    """The Ear of an event stream. It also remembers that there are new events."""

    __slots__ = ()

    @property
    def heard(self) -> bool:
        """Whether there may be something to send."""
        return self.changed

    def hear_event(self) -> None:
        """Remember that there is a new event to send, and end the wait."""
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
        """Whether there may be something to send."""
        return self.changed or self.has_events

    def hear_event(self) -> None:
        """Remember that there is a new event to send, and end the wait."""
        self.has_events = True
        self.wake()

    def pour(self, ticket: PollTicket | StreamTicket) -> None:
        """Forget what was heard, because the view answers with new events too."""
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
        """Remember that these things of the environment changed, and end the wait."""
        self.things.update((kind, id_) for id_ in ids)
        if len(self.things) > MOST_THINGS:
            self.things.clear()
            self.missed = True
        self.hear_change()

    def hear_again(self) -> None:
        """Remember that notifications may have been lost, and end the wait."""
        self.missed = True
        self.hear_change()

    def pour(self, ticket: PollTicket | StreamTicket) -> None:
        """Move the changed things into the ticket."""
        assert isinstance(ticket, EnvironmentStreamTicket)
        super().pour(ticket)
        ticket.changed |= self.things
        ticket.missed |= self.missed
        self.things.clear()
        self.missed = False


class Listener:
    """Keeps the process's LISTEN connection open as long as `run` runs.

    `healthy` says whether notifications arrive. While they don't, waiting requests must ask more often.
    """

    def __init__(self, connect: Connect, watches: Watches | None = None) -> None:
        self._connect = connect
        # The name of this process in the notifications that it sends to others.
        self.name = secrets.token_hex(4)
        # What this process knows of the environments that somebody streams.
        self._watches = watches or Watches()
        # The Ear objects of the waiting requests, by the id of the subject whose notifications they get. Most
        # lists hold one Ear, and a list of one takes 150 bytes less than a set.
        self._ears: defaultdict[str, list[Ear]] = defaultdict(list)
        # Ends the hearing on the present connection; None while there is no connection.
        self._alarm: asyncio.Timeout | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._reported = False
        self.healthy = False

    def subscribe(self, ear: Ear, subject: UUID) -> None:
        """From now on, pass notifications about a subject, such as a worker, to the Ear of a waiting request."""
        self._ears[str(subject)].append(ear)

    def unsubscribe(self, ear: Ear, subject: UUID) -> None:
        """Stop passing notifications about a subject to the Ear of a waiting request."""
        name = str(subject)
        self._ears[name].remove(ear)
        if not self._ears[name]:
            del self._ears[name]

    @property
    def waiting(self) -> int:
        """Return how many waiting polls this process holds. A poll counts once, although it may also wait for pools."""
        return len({ear for ear in self._all() if not isinstance(ear, StreamEar)})

    @property
    def streaming(self) -> int:
        """Return how many event streams this process holds.

        A stream counts once, although it gets notifications about several subjects, such as a worker and an API key.
        """
        return len({ear for ear in self._all() if isinstance(ear, StreamEar)})

    def wake_all(self) -> None:
        """Wake every waiting request."""
        for ear in self._all():
            ear.wake()

    def deliver(self, payload: str) -> None:
        """Pass a notification on to the requests that wait for news of its subject, such as a worker or an API key.

        Its form is `<topic> <id of the subject>[ <detail>]`. Any other text is ignored.
        """
        topic, _, rest = payload.partition(" ")
        subject, _, detail = rest.partition(" ")
        if topic == RUNS and subject != self.name:
            self.hear_events(detail.split(" "))
        if topic == WATCHED:
            self._watches.hear(subject)
        ears = list(self._ears.get(subject, ()))
        if topic == POOL and detail.isdecimal():
            # Only as many polls are woken as the pool has runs. Which ones is random, because the poll that was woken
            # may belong to a worker that can't take the run, and must not be chosen each time.
            idle = [ear for ear in ears if not ear.changed]
            ears = random.sample(idle, min(int(detail), len(idle)))
        for ear in ears:
            if topic in {CHANGED, POOL}:
                ear.hear_change()
            elif topic == EVENT:
                ear.hear_event()
            elif topic == POLLING and detail.isdecimal():
                ear.hear_poll(int(detail))
            elif topic == THINGS:
                kind, *ids = detail.split(" ")
                ear.hear_things(kind, [UUID(id_) for id_ in ids])

    def hear_events(self, subjects: Iterable[str]) -> None:
        """Tell the requests that wait for news of these subjects, such as runs, that there are new events."""
        for subject in subjects:
            for ear in self._ears.get(subject, ()):
                ear.hear_event()

    async def reconnect(self) -> None:
        """Close the connection on which notifications arrive, if it is open, so that `run` opens another.

        This is needed when the database's server lost its network or is no longer the primary, because then it sends
        nothing and does not end the connection.
        """
        # `run` closes the connection itself. If it were closed here, its file descriptor would still be watched by the
        # event loop, and the next socket that gets the same number would never be read.
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(0)

    async def run(self) -> None:
        """Listen until cancelled. When the connection ends, connect again, after ever longer pauses."""
        self._pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with await self._connect() as connection:
                    await self._hear(connection)
                self._lost("the connection ended")
            except Exception as error:
                self._lost(error)
            finally:
                self.healthy = False
            # The pause is random, because all processes of a site lose their database at the same moment and should not
            # return together.
            await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    async def _hear(self, connection: AsyncConnection) -> None:
        """Listen on this connection until it ends. Raises TimeoutError when `reconnect` gives it up."""
        try:
            async with asyncio.timeout(None) as self._alarm:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                self._pause = FIRST_PAUSE_SECONDS
                self._found()
                async for notification in connection.notifies():
                    self.deliver(notification.payload)
        except TimeoutError:
            raise TimeoutError("a heartbeat of this process failed") from None
        finally:
            self._alarm = None

    def _found(self) -> None:
        self.healthy = True
        self._watches.learn()
        if self._reported:
            self._reported = False
            log.info("hearing the database's notifications again")
        # Notifications that were sent while there was no connection are lost, so every waiting request asks again.
        for ear in self._all():
            ear.hear_again()

    def _lost(self, reason: object) -> None:
        self._watches.hear_nothing()
        if not self._reported:
            self._reported = True
            log.warning(
                "not hearing the database's notifications; waiting polls look every few seconds",
                reason=str(reason).strip().partition("\n")[0],
            )

    def _all(self) -> list[Ear]:
        return [ear for ears in self._ears.values() for ear in ears]
