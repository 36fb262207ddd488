"""Receives the database's notifications over one connection per process, and wakes the requests that wait for them."""

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connections
from django.db.utils import ConnectionHandler
from psycopg import AsyncConnection, sql

from pipedai import env
from pipedai.logs import get_logger
from pipedai.server.ears import Ear, StreamEar
from pipedai.wakeups import CHANGED, CHANNEL, EVENT, POLLING, POOL, RUNS, THINGS, WATCHED, Watches

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
        # Ends the hearing on the present connection; None while there is no connection.
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
        """A stream counts once, although it gets notifications about several subjects."""
        return len({ear for ear in self._all() if isinstance(ear, StreamEar)})

    def wake_all(self) -> None:
        for ear in self._all():
            ear.wake()

    def deliver(self, payload: str) -> None:
        """`payload` is `<topic> <id of the subject>[ <detail>]`; any other text is ignored."""
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
        for subject in subjects:
            for ear in self._ears.get(subject, ()):
                ear.hear_event()

    async def reconnect(self) -> None:
        """Close the connection on which notifications arrive, so that `run` opens another. A database's server that is
        cut off, or is no longer the primary, sends nothing and ends no connection.
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
    """Never starts an embedded PostgreSQL: the first request does, and a stopped one stays stopped."""
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
