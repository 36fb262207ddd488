"""Decides for each list whether the replica may answer it.

The replica answers a caller only if it is a standby, is at most MOST_BEHIND behind, and has replayed everything that
the caller has written. For this the primary's table `recent_write` has, for each user or API key, the position in the
write-ahead log (WAL) of their last write. A process that reads a replica writes a special row, the readers' row, into
that table. Processes record who writes only while this row exists.

The replica's answer is used only if it is a success. If the replica is away, cancels the statement, or finds an error
in the request, the primary is asked the same, so that no request fails because of the replica.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeVar, cast
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, transaction
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from pipedai.api.principal import principal_of
from pipedai.events import Event
from pipedai.logs import get_logger
from pipedai.replica import REPLICA, is_on, reading_replica
from pipedai.sql import execute, fetch_row, reason, sqlstate

log = get_logger(__name__)

# The kinds of callers that read lists.
_READERS = frozenset({"user", "api_key", "staff"})

# The id in the readers' row. Writes before the position in this row may not have been recorded.
READERS = UUID(int=0)
# The position of the readers' row until it is committed. No replica reaches it.
NOT_YET = 2**63 - 1

# The position is a number of bytes since the beginning of the WAL. If two positions of a caller arrive in the wrong
# order, `greatest` keeps the later one.
_REMEMBER = """
INSERT INTO recent_write AS w (principal_id, position, written_at)
SELECT id, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, statement_timestamp()
FROM unnest(%(ids)s::uuid[]) id WHERE EXISTS (SELECT FROM recent_write WHERE principal_id = %(readers)s) ORDER BY id
ON CONFLICT (principal_id) DO UPDATE
SET position = greatest(w.position, excluded.position), written_at = excluded.written_at
"""
_ANNOUNCE = """
INSERT INTO recent_write (principal_id, position, written_at)
VALUES (%(readers)s, %(not_yet)s, statement_timestamp())
ON CONFLICT (principal_id) DO UPDATE SET written_at = excluded.written_at
"""
# A process that does not find the readers' row does not record its write. But its write was committed before the row
# was, and the position is read after the row's commit, so it is beyond every write that was not recorded.
_BEGIN = """
UPDATE recent_write SET position = pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
WHERE principal_id = %(readers)s AND position = %(not_yet)s
"""
# Old rows have no effect, because a replica that is more than half a minute behind is not read. The readers' row is
# written anew each hour while a replica is read, so it stays.
_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT principal_id FROM recent_write WHERE written_at < statement_timestamp() - interval '2 hours'
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM recent_write w USING old WHERE w.principal_id = old.principal_id
"""


def note_writers(sender: Any, events: Iterable[Event], **kwargs: Any) -> None:  # noqa: ARG001
    """Receives the domain events, which every action sends, and remembers their actors after the commit."""
    ids = {event.actor.id for event in events if event.actor.type in _READERS and event.actor.id}
    if ids:
        transaction.on_commit(partial(remember, ids))


def remember(ids: Iterable[UUID]) -> None:
    """Records that these users and keys have written, so that no older replica answers them. Errors are only logged."""
    try:
        execute(_REMEMBER, {"ids": list(ids), "readers": READERS})
    except DatabaseError as error:
        log.warning("replica.writer_not_remembered", error=type(error).__name__)


def begin_remembering() -> None:
    """Makes all processes remember which callers write, for two hours at least. Call it outside of a transaction."""
    params = {"readers": READERS, "not_yet": NOT_YET}
    execute(_ANNOUNCE, params)
    execute(_BEGIN, params)


def prune_recent_writes(*, limit: int = 10_000) -> int:
    return execute(_PRUNE, {"limit": limit})


T = TypeVar("T")
Action = TypeVar("Action", bound=Callable[..., Any])
# The replica's state, as GET /health shows it. `behind` also means that it is no standby, or has not yet replayed any
# commit since it started, so that nobody knows how old its rows are.
State = Literal["ok", "behind", "unreachable"]

# How far the replica may be behind the primary: three of the heartbeats that web processes write every 10 s. The lag is
# measured by what was replayed last, and while nothing else is written that is a heartbeat.
MOST_BEHIND = timedelta(seconds=30)
# After a replica did not answer or was behind, a process does not ask it again for this many seconds.
PAUSE_SECONDS = {"unreachable": 10.0, "behind": 1.0}
# The SQLSTATE of a statement that reached the time-out of its role. The primary would take as long, so it is not asked.
_TIMED_OUT = "57014"
# The SQLSTATE classes of a server that does not let us in or can't work: 08 the connection broke, 28 and 3D the role or
# the database is wrong, 53 it has no connection left, 57 it shuts down or starts, 58 it can't read its files.
_AWAY_CLASSES = {"08", "28", "3D", "53", "57", "58"}
# The statuses of errors whose cause may only be that the replica does not have a row yet.
_MAYBE_TOO_EARLY = {400, 404}

# Asks the primary for the time, the position of the caller's last write, and whether the readers' row is new enough.
_NEEDED = """
SELECT clock_timestamp() AS now, greatest(readers.position,
    (SELECT position FROM recent_write WHERE principal_id = %(principal_id)s)) AS position,
    readers.position < %(not_yet)s AND readers.written_at > statement_timestamp() - interval '1 hour' AS is_remembered
FROM (SELECT) one LEFT JOIN recent_write readers ON readers.principal_id = %(readers)s
"""
# Asks the replica up to which position it has replayed the WAL, and when the last replayed transaction was committed,
# by the primary's clock. As web processes commit a heartbeat every 10 s, this time shows how old the rows are.
_REACHED = """
SELECT pg_is_in_recovery() AS is_standby, pg_last_xact_replay_timestamp() AS as_of,
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint AS position
"""


class Fitness:
    """What this process knows of the replica. A replica that is behind or unreachable is not asked for some seconds."""

    def __init__(self) -> None:
        self.state: State = "ok"
        self._lock = threading.Lock()
        self._pause_until = 0.0

    def is_left_alone(self) -> bool:
        return time.monotonic() < self._pause_until

    def found(self, state: State, why: str = "") -> None:
        with self._lock:
            before, self.state = self.state, state
            if state != "ok":
                self._pause_until = time.monotonic() + PAUSE_SECONDS[state]
        if state != before:
            if state == "ok":
                log.info("replica.used_again")
            else:
                log.warning("replica.passed_over", state=state, reason=why)

    def try_again(self) -> None:
        self._pause_until = 0.0


fitness = Fitness()


def from_replica(action: Action) -> Action:
    """Decorator, to be written below `@Operation`: lets the replica answer an action that only reads. Credentials,
    tenant and role are read from the primary before.
    """

    @functools.wraps(action)
    def read(view: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        if not is_on():
            return action(view, request, *args, **kwargs)
        work = functools.partial(action, view, request, *args, **kwargs)
        return read_for(principal_of(request).id, work)

    # A test compares the actions that have this mark with docs/scaling.md.
    vars(read)["reads_replica"] = True
    return cast("Action", read)


def read_for(principal_id: UUID, work: Callable[[], T]) -> T:
    """Returns the result of `work`, which reads from the replica if it is up to date, and else from the primary. `work`
    may be called twice.
    """
    if not is_on() or fitness.is_left_alone():
        return work()
    params = {"principal_id": principal_id, "readers": READERS, "not_yet": NOT_YET}
    needed = fetch_row(_NEEDED, params)
    if not needed["is_remembered"]:
        begin_remembering()
        return work()
    looked = False
    try:
        # The state is read in the transaction of the list, so that both are read from one server, even through
        # PgBouncer or a balancer before several replicas.
        with transaction.atomic(using=REPLICA), reading_replica():
            reached = _has_reached(needed["position"], now=needed["now"])
            looked = True
            if reached:
                return work()
    except (DatabaseError, InterfaceError) as error:
        if looked and sqlstate(error) == _TIMED_OUT:
            raise
        _failed(error, looked=looked)
    except APIException as error:
        if error.status_code not in _MAYBE_TOO_EARLY:
            raise
    return work()


def state_of_replica(now: datetime) -> State:
    if not fitness.is_left_alone():
        try:
            with transaction.atomic(using=REPLICA), reading_replica():
                _has_reached(None, now=now)
        except (DatabaseError, InterfaceError) as error:
            _failed(error, looked=False)
    return fitness.state


def _has_reached(position: int | None, *, now: datetime) -> bool:
    """Whether this thread now reads a standby that is not too far behind and has replayed the WAL up to `position`."""
    reached = fetch_row(_REACHED, {})
    if not reached["is_standby"]:
        fitness.found("behind", "It is no standby.")
    elif reached["as_of"] is None or reached["position"] is None:
        fitness.found("behind", "It has replayed no commit since it started.")
    elif (lag := now - reached["as_of"]) > MOST_BEHIND:
        fitness.found("behind", f"It is {lag.total_seconds():.1f} s behind.")
    else:
        fitness.found("ok")
        return position is None or bool(reached["position"] >= position)
    return False


def _failed(error: Exception, *, looked: bool) -> None:
    """Stops asking the replica for a while, unless the error is about this list alone. `looked` says whether the
    replica's state was read before the error.
    """
    state = sqlstate(error)
    if state is None or state[:2] in _AWAY_CLASSES:
        connections[REPLICA].close()
        fitness.found("unreachable", reason(error))
    elif not looked:
        # The replica is no standby of PostgreSQL. Amazon Aurora, for example, does not support the functions.
        fitness.found("behind", reason(error))
    else:
        # For example the primary removed rows that the list was reading (40001), or a migration has not arrived yet.
        log.warning("replica.failed", sqlstate=state, reason=reason(error))
