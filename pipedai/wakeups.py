"""Tells waiting polls and event streams, by PostgreSQL's NOTIFY, that something changed. They also look on a timer.

Notifications are sent after the commit, because a NOTIFY inside a transaction makes commits wait for each other (6,800
instead of 21,000 a second).
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from django.db import DatabaseError, transaction

from pipedai.logs import get_logger
from pipedai.sql import execute

log = get_logger(__name__)

CHANNEL = "pipedai"

# A stream announces its subject, a run or an environment, this often, and the announcement counts for WATCHED_SECONDS.
ANNOUNCED_EVERY_SECONDS = 10.0
WATCHED_SECONDS = 40.0
# A process that has just begun to hear notifications knows of all streams after this many seconds, because each stream
# asks its view, which announces it, within 15 s.
LEARNING_SECONDS = 20.0

# The topics of notifications. The text of a notification is `<topic> <id>[ <detail>]`, where the id is that of a
# worker, an API key, a user, a run, a pool or an environment.
# CHANGED says that a run, the capacity, a setting or the token of the worker changed, or that the key was revoked, or
# that the user's access changed.
# POLLING says that a newer poll of the worker began; its detail is the time when it began, in microseconds.
# EVENT says that an event of the worker was recorded.
# POOL says that runs of the pool can be taken; its detail is how many.
CHANGED = "changed"
POLLING = "polling"
EVENT = "event"
POOL = "pool"
# THINGS says that things of an environment changed; its detail is their kind and their ids. WATCHED says that somebody
# streams a run, or the changes of an environment.
THINGS = "things"
WATCHED = "watched"
# RUNS says that events of runs were stored; its detail is the ids of the runs. In place of the one id it has the name
# of the process that sends it, which ignores it because its own streams know already.
RUNS = "runs"
NOBODY = "-"
# How many ids one notification names. PostgreSQL limits it to 8,000 bytes.
_IDS_AT_ONCE = 100

# Takes the id of a run that has new events, to announce this a moment later together with other runs. Returns False if
# it can't. Only a web process has such a function.
Gather = Callable[[UUID], bool]
_gather: Gather | None = None

_NOTIFY = "SELECT pg_notify(%(channel)s, payload) FROM unnest(%(payloads)s::text[]) payload"


class Watches:
    """The runs and environments that somebody streams, as far as this process knows. For all others no notification is
    sent. The event loop writes and threads read, each in single steps on a dict, so no lock is needed. Streams announce
    their subjects again and again. Times are of the monotonic clock.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        # Until this time every subject counts as watched, because this process may not know of all streams.
        self._all_until = 0.0

    def hear(self, subject: str) -> None:
        now = time.monotonic()
        if subject not in self._until:
            self._until = {id_: until for id_, until in self._until.items() if until > now}
        self._until[subject] = now + WATCHED_SECONDS

    def hear_nothing(self) -> None:
        """Count every subject as watched, because announcements don't reach this process now."""
        self._all_until = math.inf

    def learn(self) -> None:
        """Count every subject as watched until all streams have announced theirs to this process."""
        self._all_until = time.monotonic() + LEARNING_SECONDS

    def is_watched(self, subject: object) -> bool:
        if not (self._until or self._all_until):
            return False
        now = time.monotonic()
        return self._all_until > now or self._until.get(str(subject), 0.0) > now

    def forget(self) -> None:
        self._until, self._all_until = {}, 0.0


# The watches of this process.
watches = Watches()


def wake_workers(worker_ids: Iterable[UUID | None]) -> None:
    """When this transaction commits, make the polls and streams of these workers ask again. An id may also be that of a
    run, whose streams ask, or of an API key or user, whose own streams do.
    """
    _after_commit(CHANGED, worker_ids)


def wake_pools(runs: Mapping[UUID, int]) -> None:
    """When this transaction commits, wake as many polls of each pool as it has runs that can be taken."""
    if runs:
        payloads = [f"{POOL} {pool_id} {count}" for pool_id, count in sorted(runs.items())]
        transaction.on_commit(lambda: _try_to_notify(payloads))


def announce_events(worker_ids: Iterable[UUID]) -> None:
    """When this transaction commits, make the event streams of these workers read the new events."""
    _after_commit(EVENT, worker_ids)


def announce_events_of_run(run_id: UUID) -> None:
    """When this transaction commits, make the event streams of this run read the new events, within a moment."""

    def announce() -> None:
        if _gather is None or not _gather(run_id):
            announce_runs_with_events([run_id])

    transaction.on_commit(announce)


def gather_runs_with_events(gather: Gather | None) -> None:
    """Let this function announce new events of runs from now on. With None, they are announced one by one at once."""
    global _gather
    _gather = gather


def announce_runs_with_events(run_ids: Iterable[UUID], *, told_by: str = NOBODY) -> None:
    """Makes the streams of these runs read new events, except in the process `told_by`, whose streams know already."""
    _try_to_notify([f"{RUNS} {told_by} {piece}" for piece in _pieces(run_ids)])


def announce_things(environment_id: UUID, kind: str, ids: Iterable[UUID]) -> None:
    """When this transaction commits, tell the environment's streams that things of a `kind`, such as `run`, changed."""
    payloads = [f"{THINGS} {environment_id} {kind} {piece}" for piece in _pieces(ids)]
    if payloads:
        transaction.on_commit(lambda: _try_to_notify(payloads))


def _pieces(ids: Iterable[UUID]) -> list[str]:
    names = sorted({str(id_) for id_ in ids})
    starts = range(0, len(names), _IDS_AT_ONCE)
    return [" ".join(names[start : start + _IDS_AT_ONCE]) for start in starts]


def announce_watch(subject: UUID) -> None:
    _notify([f"{WATCHED} {subject}"])


def announce_poll(worker_id: UUID, order: int) -> None:
    """Tell every web process that a poll began, so that older polls of the worker end. `order` is the poll's
    beginning in microseconds on the database's clock, so that a late notification ends only older ones.
    """
    _notify([f"{POLLING} {worker_id} {order}"])


def _after_commit(topic: str, worker_ids: Iterable[UUID | None]) -> None:
    ids = sorted({str(worker_id) for worker_id in worker_ids if worker_id is not None})
    if ids:
        transaction.on_commit(lambda: _try_to_notify([f"{topic} {id_}" for id_ in ids]))


def _try_to_notify(payloads: list[str]) -> None:
    """Sends notifications. An error is only logged, because the transaction is already committed."""
    try:
        _notify(payloads)
    except DatabaseError as error:
        log.warning("wakeup.lost", error=type(error).__name__)


def _notify(payloads: list[str]) -> None:
    execute(_NOTIFY, {"channel": CHANNEL, "payloads": payloads})
