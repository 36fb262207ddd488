"""Receives the database's notifications over one connection per process, and wakes the requests that wait for them."""

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connections
from django.db.utils import ConnectionHandler
from psycopg import AsyncConnection, sql

from pipedai import env
from pipedai.logs import get_logger
from pipedai.server.request_scope import ClientGone, Receive
from pipedai.server.ticket import EnvironmentStreamTicket, Ticket
from pipedai.wakeups import (
    CHANGED,
    CHANNEL,
    EVENT,
    POLLING,
    POOL,
    RUNS,
    THINGS,
    WATCHED,
    Watches,
    announce_runs_with_events,
    gather_runs_with_events,
)

# A stream of an environment remembers at most this many changed things between two answers. If there are more, it
# reports that anything may have changed.
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
        """Ignore a notification that things of an environment changed, which only the environment's streams need."""

    def pour(self, ticket: Ticket) -> None:
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
    """The Ear of a stream of a run. It tells new events from other news, because FanOut can read events alone."""

    __slots__ = ("has_events",)

    def __init__(self) -> None:
        super().__init__()
        # Whether there are new events, which can be read without asking the view.
        self.has_events = False

    @property
    def heard(self) -> bool:
        return self.changed or self.has_events

    def hear_event(self) -> None:
        self.has_events = True
        self.wake()

    def pour(self, ticket: Ticket) -> None:
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

    def pour(self, ticket: Ticket) -> None:
        assert isinstance(ticket, EnvironmentStreamTicket)
        super().pour(ticket)
        ticket.changed |= self.things
        ticket.missed |= self.missed
        self.things.clear()
        self.missed = False


log = get_logger(__name__)

Connect = Callable[[], Awaitable[AsyncConnection]]

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0


class Listener:
    """Keeps the process's LISTEN connection open. While it is not `healthy`, waiting requests ask more often."""

    def __init__(self, connect: Connect, watches: Watches | None = None) -> None:
        self._connect = connect
        # The name of this process in the notifications that it sends to others.
        self.name = secrets.token_hex(4)
        # What this process knows of the environments that somebody streams.
        self._watches = watches or Watches()
        # The Ear objects of the waiting requests, by the id of the subject whose notifications they get. Most
        # lists hold one Ear, and a list of one takes 150 bytes less than a set.
        self._ears: defaultdict[str, list[Ear]] = defaultdict(list)
        # The time-out by which `reconnect` ends the present connection; None while there is no connection.
        self._alarm: asyncio.Timeout | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._reported = False
        self.healthy = False

    def subscribe(self, ear: Ear, subject: UUID) -> None:
        """From now on, pass notifications about a subject, such as a worker, to the Ear of a waiting request."""
        self._ears[str(subject)].append(ear)

    def unsubscribe(self, ear: Ear, subject: UUID) -> None:
        name = str(subject)
        self._ears[name].remove(ear)
        if not self._ears[name]:
            del self._ears[name]

    @property
    def waiting(self) -> int:
        return len({ear for ear in self._all() if not isinstance(ear, StreamEar)})

    @property
    def streaming(self) -> int:
        """The number of open streams. A stream counts once, although it gets notifications about several subjects."""
        return len({ear for ear in self._all() if isinstance(ear, StreamEar)})

    def wake_all(self) -> None:
        for ear in self._all():
            ear.wake()

    def deliver(self, payload: str) -> None:
        """Passes on a notification. `payload` is `<topic> <id of the subject>[ <detail>]`; other texts are ignored."""
        topic, _, rest = payload.partition(" ")
        subject, _, detail = rest.partition(" ")
        if topic == RUNS and subject != self.name:
            self.hear_events(detail.split(" "))
        if topic == WATCHED:
            self._watches.hear(subject)
        ears = list(self._ears.get(subject, ()))
        if topic == POOL and detail.isdecimal():
            # Only as many polls are woken as the pool has runs. They are chosen at random, because a chosen poll may
            # belong to a worker that can't take the run, and must not be chosen each time.
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
                with suppress(ValueError):
                    ear.hear_things(kind, [UUID(id_) for id_ in ids])

    def hear_events(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            for ear in self._ears.get(subject, ()):
                ear.hear_event()

    async def reconnect(self) -> None:
        """Close the connection on which notifications arrive, so that `run` opens another. This is needed because a
        database server that is cut off, or is no longer the primary, sends nothing, but does not end the connection.
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


# Options that Django adds to its own connections. The connections of the event loop must not get them.
_NOT_OURS = ("cursor_factory", "context", "prepare_threshold")


async def connect() -> AsyncConnection:
    """Connects to the database itself, for LISTEN. Never starts an embedded PostgreSQL: only requests do."""
    return await AsyncConnection.connect(**await asyncio.to_thread(listen_params), autocommit=True)


def listen_params() -> dict[str, Any]:
    handler = connections
    if settings.DATABASE_LISTEN_URL:
        handler = ConnectionHandler({"default": env.database_config(settings.DATABASE_LISTEN_URL)})
    return _params(handler, "pipedai-listen")


async def connect_as_requests() -> AsyncConnection:
    """Connects through the pooler, if there is one, as requests do. Never starts an embedded PostgreSQL."""
    params = await asyncio.to_thread(_params, connections, "pipedai-heartbeat")
    # A pooler may run each statement in another session, which does not know statements prepared before.
    return await AsyncConnection.connect(**params, autocommit=True, prepare_threshold=None)


def _params(handler: ConnectionHandler, name: str) -> dict[str, Any]:
    params = handler["default"].get_connection_params()
    ours = {option: value for option, value in params.items() if option not in _NOT_OURS}
    return {**ours, "application_name": name}


# Runs whose events are stored within this time are announced together.
GATHER_SECONDS = 0.1

# Runs a function in one of the threads that serve requests.
InThread = Callable[[Callable[[], None]], Awaitable[None]]


class RunNews:
    """Collects runs with new events for GATHER_SECONDS, then wakes their streams: those of this process directly, those
    of others by one notification. If it dies before, streams look again after `event_stream.RECHECK_SECONDS`.
    """

    def __init__(self, listener: Listener, in_thread: InThread) -> None:
        self._listener = listener
        self._in_thread = in_thread
        self._lock = Lock()
        self._runs: set[UUID] = set()
        # The event loop in which `run` waits for `self._come`, or None while `run` does not run. Threads call `add`,
        # which sets `self._come` in that loop when it adds the first run.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._come = asyncio.Event()

    async def run(self) -> None:
        """Take over the announcements of this process until cancelled, and then announce the runs that still wait."""
        self._loop = asyncio.get_running_loop()
        gather_runs_with_events(self.add)
        try:
            while True:
                await self._come.wait()
                await asyncio.sleep(GATHER_SECONDS)
                await self._tell()
        finally:
            gather_runs_with_events(None)
            with self._lock:
                self._loop = None
            await self._tell()

    def add(self, run_id: UUID) -> bool:
        with self._lock:
            if self._loop is None:
                return False
            if not self._runs:
                self._loop.call_soon_threadsafe(self._come.set)
            self._runs.add(run_id)
        return True

    async def _tell(self) -> None:
        with self._lock:
            runs, self._runs = self._runs, set()
            self._come.clear()
        if not runs:
            return
        self._listener.hear_events(map(str, runs))
        try:
            await self._in_thread(
                partial(announce_runs_with_events, runs, told_by=self._listener.name)
            )
        except Exception as error:
            log.warning("wakeup.lost", error=type(error).__name__)
