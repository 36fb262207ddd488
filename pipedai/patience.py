"""Runs work that needs locks, such as migrations, without making others wait long.

A statement that waits for a lock makes later ones wait too, so the work gives up soon and is tried again.
"""

import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from pipedai.sql import execute, sqlstate

# How many seconds a statement may wait for a lock. The time must be less than two seconds, the time-out that
# pipedai.timeouts sets for the locks of web requests.
LOCK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.5
# The SQLSTATEs lock_not_available and deadlock_detected.
LACKS_LOCK = frozenset({"55P03", "40P01"})

Say = Callable[[str], None]
Done = TypeVar("Done")


def patiently(work: Callable[[], Done], *, say: Say, what: str) -> Done:
    """Calls `work` in a transaction, again until it gets its locks, and returns its result. `say` gets a message each
    time that it did not; `what` names the locked thing.
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
    """Calls `work`, with these pauses in seconds, until it fails with none of the SQLSTATEs, and returns its result.
    `tell` is called before each pause. Raises the last error.
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
    """Call `migrate` while no other release works, and again if it could not get its locks, for `patience` seconds in
    all. Raises OutOfPatience.
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
    """Hold the database's lock for releases, in a transaction, as PgBouncer keeps no session for us."""
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
