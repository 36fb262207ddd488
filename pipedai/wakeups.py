"""Tells waiting polls and event streams that something changed for a worker, by PostgreSQL's NOTIFY.

Nothing depends on a notification, because waiting requests also ask again on a timer. A notification is sent after the
commit, because a NOTIFY inside a transaction makes commits queue up behind one lock (we measured 6,800 instead of
21,000 commits/s).
"""

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from django.db import DatabaseError, transaction

from pipedai.logs import get_logger
from pipedai.sql import execute

log = get_logger(__name__)

CHANNEL = "pipedai"

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
# streams the changes of an environment.
THINGS = "things"
WATCHED = "watched"
# RUNS says that events of runs were stored. In place of one id it has the name of the process that says so, which has
# told its own streams already; its detail is the ids of the runs.
RUNS = "runs"
NOBODY = "-"
# How many ids one notification names. PostgreSQL limits it to 8,000 bytes.
_IDS_AT_ONCE = 100

# Takes the id of a run that has new events, to announce them a moment later with those of other runs. It returns False
# if it can't. Only a web process has such a function.
Gather = Callable[[UUID], bool]
_gather: Gather | None = None

_NOTIFY = "SELECT pg_notify(%(channel)s, payload) FROM unnest(%(payloads)s::text[]) payload"


def wake_workers(worker_ids: Iterable[UUID | None]) -> None:
    """When this transaction commits, make the waiting polls and the event streams of these workers ask again.

    `worker_ids` may also contain ids of API keys, users and runs. Such an id makes the event streams of the
    run, or those that the key or the user opened, ask again.
    """
    _after_commit(CHANGED, worker_ids)


def wake_pools(runs: Mapping[UUID, int]) -> None:
    """When this transaction commits, make waiting polls of these pools' workers ask again.

    `runs` has for each pool how many of its runs can be taken now. Each web process wakes at most as many polls of the
    pool. The others find what is left on their timers.
    """
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
    """Let this function announce the new events of runs from now on; None lets each be announced at once."""
    global _gather
    _gather = gather


def announce_runs_with_events(run_ids: Iterable[UUID], *, told_by: str = NOBODY) -> None:
    """Makes the event streams of these runs read the new events, except those of the process with the name `told_by`.

    An error of the database is only logged.
    """
    names = sorted(str(run_id) for run_id in run_ids)
    pieces = [names[n : n + _IDS_AT_ONCE] for n in range(0, len(names), _IDS_AT_ONCE)]
    _try_to_notify([f"{RUNS} {told_by} {' '.join(piece)}" for piece in pieces])


def announce_things(environment_id: UUID, kind: str, ids: Iterable[UUID]) -> None:
    """When this transaction commits, tell the streams of an environment that these things changed.

    `kind` is one word, such as `run`.
    """
    names = sorted({str(id_) for id_ in ids})
    pieces = [names[n : n + _IDS_AT_ONCE] for n in range(0, len(names), _IDS_AT_ONCE)]
    payloads = [f"{THINGS} {environment_id} {kind} {' '.join(piece)}" for piece in pieces]
    if payloads:
        transaction.on_commit(lambda: _try_to_notify(payloads))


def announce_watch(environment_id: UUID) -> None:
    """Tell every web process that somebody streams the changes of an environment."""
    _notify([f"{WATCHED} {environment_id}"])


def announce_poll(worker_id: UUID, order: int) -> None:
    """Tell every web process that a poll of this worker began, so that older polls of the worker end (SPEC §5).

    `order` is the time when the poll began, in microseconds on the database's clock. Thus a notification that arrives
    late ends only polls that are older.
    """
    _notify([f"{POLLING} {worker_id} {order}"])


def _after_commit(topic: str, worker_ids: Iterable[UUID | None]) -> None:
    ids = sorted({str(worker_id) for worker_id in worker_ids if worker_id is not None})
    if ids:
        transaction.on_commit(lambda: _try_to_notify([f"{topic} {id_}" for id_ in ids]))


def _try_to_notify(payloads: list[str]) -> None:
    """Sends the notifications to PostgreSQL.

    An error is only logged, because the transaction that caused the notifications is already committed.
    """
    try:
        _notify(payloads)
    except DatabaseError as error:
        log.warning("wakeup.lost", error=type(error).__name__)


def _notify(payloads: list[str]) -> None:
    execute(_NOTIFY, {"channel": CHANNEL, "payloads": payloads})
