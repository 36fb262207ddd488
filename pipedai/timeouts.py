"""Limits how long a statement may run and wait for a lock: seconds in a web request, longer elsewhere.

A request that waits for a locked row keeps a thread, so the role's defaults are those of web requests. Schedulers and
commands set their own in each transaction, because PgBouncer may lose a plain `SET`. A statement that waits for a lock
makes later ones wait too, so work such as a migration gives up soon and is tried again.
"""

import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql
from psycopg.pq import TransactionStatus

from pipedai import env
from pipedai.sql import execute, sqlstate

# How many seconds a statement may wait for a lock. It must be less than the two seconds that web requests wait for a
# lock, because requests queue behind the waiting statement.
LOCK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.5
# The SQLSTATEs lock_not_available and deadlock_detected.
LACKS_LOCK = frozenset({"55P03", "40P01"})


def lacks_lock(error: Exception) -> bool:
    return isinstance(error, DatabaseError) and sqlstate(error) in LACKS_LOCK


Say = Callable[[str], None]
Done = TypeVar("Done")


def patiently(work: Callable[[], Done], *, say: Say, what: str) -> Done:
    """Calls `work` in a transaction, again and again until it gets its locks, and returns its result. `say` gets a
    message after each failure; `what` names the locked thing in it.
    """

    def tell(pause: float, _: DatabaseError) -> None:
        say(f"Another transaction holds {what}: trying again in {pause:g} s.")

    return retry(partial(in_transaction, work, LOCK_SECONDS), pauses=_growing(), tell=tell)


def retry(
    work: Callable[[], Done],
    *,
    pauses: Iterator[float],
    tell: Callable[[float, DatabaseError], None],
    states: Container[str | None] = LACKS_LOCK,
) -> Done:
    """Calls `work` and returns its result. If it fails with one of the SQLSTATEs in `states`, `retry` calls `tell`,
    makes the next of `pauses`, in seconds, and tries again. Raises the last error.
    """
    while True:
        try:
            return work()
        except DatabaseError as error:
            pause = next(pauses, None) if sqlstate(error) in states else None
            if pause is None:
                raise
            tell(pause, error)
        time.sleep(pause)


def in_transaction(work: Callable[[], Done], lock_seconds: float) -> Done:
    with transaction.atomic():
        execute(_lock_timeout(lock_seconds), {})
        return work()


def _growing() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _lock_timeout(seconds: float) -> str:
    return f"SET LOCAL lock_timeout = {seconds * 1000:.0f}"


class OutOfPatience(Exception):  # noqa: N818
    """A deployment's migrations could not lock their tables in time. The message is one sentence."""


def migrate_alone(migrate: Callable[[], None], *, patience: float, say: Say) -> None:
    """Call `migrate` while no other release runs. If it can't get its locks, try again, for `patience` seconds in all.
    Raises OutOfPatience.
    """
    until = time.monotonic() + patience

    def attempt() -> None:
        with connection.execute_wrapper(_waiting_briefly):
            migrate()

    def tell(pause: float, _: DatabaseError) -> None:
        say(f"A table to be changed is in use: trying again in {pause:g} s.")

    with _only_release(until, say):
        pauses = takewhile(lambda pause: time.monotonic() + pause <= until, _growing())
        try:
            retry(attempt, pauses=pauses, tell=tell)
        except OperationalError as error:
            if sqlstate(error) not in LACKS_LOCK:
                raise
            raise OutOfPatience(
                "The tables to be changed were in use all the time: try again."
            ) from None


def invalid_indexes() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
        return [name for (name,) in cursor.fetchall()]


@contextmanager
def _only_release(until: float, say: Say) -> Iterator[None]:
    """Hold the database's lock for releases. A transaction holds it, because PgBouncer keeps no session for us."""
    keeper = connection.copy()
    try:
        waited = False
        # The lock is asked for again and again instead of being waited for in one statement. A waiting statement has a
        # snapshot, and the other release's CREATE INDEX CONCURRENTLY would wait for that snapshot to end.
        while not _took_lock(keeper):
            if time.monotonic() > until:
                raise OutOfPatience("Another release is still at work: try again when it is done.")
            if not waited:
                say("Another release is at work: waiting for it.")
            waited = True
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        keeper.close()


def _took_lock(keeper: BaseDatabaseWrapper) -> bool:
    keeper.set_autocommit(False)
    with keeper.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('pipedai release'))")
        (took,) = cursor.fetchone()
    if not took:
        keeper.rollback()
    return bool(took)


def _waiting_briefly(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    # The time-out is set in each transaction, because PgBouncer does not keep a session. Statements outside a
    # transaction, such as building an index CONCURRENTLY, need no time-out, because their locks hold up nobody.
    if context["connection"].in_atomic_block:
        execute(_lock_timeout(LOCK_SECONDS), None, False, context)
    return execute(sql, params, many, context)


@dataclass(frozen=True, slots=True)
class Timeouts:
    lock: str
    statement: str


WEB = Timeouts(lock="2s", statement="10s")
# One thread runs all jobs of a scheduler, so a job that does not get its locks at once goes on at its next turn, after
# the other jobs. A batch that hangs is rolled back after some time, and tried again.
JOB = Timeouts(lock="100ms", statement="5min")
# A thread of a scheduler that has sent one message writes down what came of it, however long its row is held.
SENDER = Timeouts(lock="30s", statement="5min")
# The time-outs of a command for operators: none, because the person who started the command can stop it.
COMMAND = Timeouts(lock="0", statement="0")

# Sets both time-outs until the transaction ends, as two `SET LOCAL` would do, but in one statement.
_SET_LOCAL = (
    "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)"
)
# The keys of Django's database settings that say where and as whom to connect.
_PLACE = ("NAME", "USER", "PASSWORD", "HOST", "PORT")


class PooledSession(Exception):  # noqa: N818
    """The error if a pooler before the database gives us no session of our own. The message is one sentence."""


def set_timeouts_of_role(timeouts: Timeouts = WEB) -> None:
    """Make these time-outs the role's defaults in this database, for later sessions. Any role may set its own."""
    alter = sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = {}")
    with transaction.atomic(), connection.cursor() as cursor:
        # The database's name is asked from PostgreSQL, because a PgBouncer may use another name for it in DATABASE_URL.
        cursor.execute("SELECT current_database()")
        (name,) = cursor.fetchone()
        for setting, value in (
            ("lock_timeout", timeouts.lock),
            ("statement_timeout", timeouts.statement),
        ):
            cursor.execute(alter.format(sql.Identifier(name), sql.Identifier(setting), value))


def session_timeouts(database: Any = connection) -> Timeouts:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        return Timeouts(*cursor.fetchone())


@contextmanager
def overriding(timeouts: Timeouts) -> Iterator[None]:
    """Set these time-outs in each transaction of this thread's connection, for the block. A single statement gets a
    transaction, because `SET LOCAL` needs one. If that is impossible, use `session_without_timeouts`.
    """
    values = [timeouts.lock, timeouts.statement]

    def execute_under(
        execute: Callable[..., Any],
        statement: str,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        database = context["connection"]
        if database.get_autocommit():
            with transaction.atomic(using=database.alias):
                execute(_SET_LOCAL, values, False, context)
                return execute(statement, params, many, context)
        if database.connection.info.transaction_status == TransactionStatus.IDLE:
            execute(_SET_LOCAL, values, False, context)
        return execute(statement, params, many, context)

    with connection.execute_wrapper(execute_under):
        yield


@contextmanager
def session_without_timeouts() -> Iterator[None]:
    """Give this thread, for the block, a session without time-outs, for statements that can't run in a transaction,
    such as CREATE INDEX CONCURRENTLY. The session avoids a pooler by using DATABASE_LISTEN_URL. Raises PooledSession if
    there is a pooler nevertheless.
    """
    database = connections[DEFAULT_DB_ALIAS]
    kept = database.settings_dict, database.execute_wrappers
    database.close()
    database.settings_dict, database.execute_wrappers = _without_timeouts(kept[0]), []
    try:
        _check_session()
        yield
    finally:
        database.close()
        database.settings_dict, database.execute_wrappers = kept


def _without_timeouts(ours: dict[str, Any]) -> dict[str, Any]:
    """Return Django's settings of the database, changed so that a session starts without time-outs."""
    place, options = {}, dict(ours["OPTIONS"])
    if settings.DATABASE_LISTEN_URL:
        direct = env.database_config(settings.DATABASE_LISTEN_URL)
        # DATABASE_LISTEN_URL is used only if it names the same role as DATABASE_URL. Tables and indexes that another
        # role made would not belong to our role.
        if direct["USER"] == ours["USER"]:
            place = {name: direct[name] for name in _PLACE}
            options = {**direct["OPTIONS"], **_of_django(options)}
    told = f"{options.get('options', '')} -c lock_timeout=0 -c statement_timeout=0"
    return {**ours, **place, "OPTIONS": {**options, "options": told.strip()}}


def _of_django(options: dict[str, Any]) -> dict[str, Any]:
    """Return the connection options that Django itself reads, without those for libpq."""
    names = ("server_side_binding", "prepare_threshold")
    return {name: options[name] for name in names if name in options}


def _check_session() -> None:
    try:
        found = session_timeouts()
    except OperationalError as error:
        # This is PgBouncer's error message if it refuses the options that set the time-outs.
        if "startup parameter" not in str(error):
            raise
        found = None
    if found != COMMAND:
        raise PooledSession(
            "There is a pooler between, such as PgBouncer, which passes on no settings: set DATABASE_LISTEN_URL to the"
            " database itself, with the same role as in DATABASE_URL."
        )
