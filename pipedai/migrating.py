"""Applies migrations without holding up the service for long, and lets only one release do so at a time.

A statement that waits for a lock on a table makes all later statements on that table wait too. Therefore a migration's
transaction gives up after a short wait for a lock, and the migration is tried again later.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from pipedai.patience import (
    FIRST_PAUSE_SECONDS,
    LOCK_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Say,
    lacks_lock,
    set_lock_timeout,
)

_LOOK_SECONDS = 0.5


class OutOfPatience(Exception):  # noqa: N818
    """A deployment's migrations could not lock their tables in time. The message is one sentence."""


def migrate_alone(migrate: Callable[[], None], *, patience: float, say: Say) -> None:
    """Call `migrate` while no other release is at work, and call it again if it could not get its locks.

    `patience` is the total time to wait, in seconds. Raises OutOfPatience when it is over.
    """
    until = time.monotonic() + patience
    with _only_release(until, say):
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                with connection.execute_wrapper(_waiting_briefly):
                    migrate()
                return
            except OperationalError as error:
                if not lacks_lock(error):
                    raise
            if time.monotonic() + pause > until:
                raise OutOfPatience("The tables to be changed were in use all the time: try again.")
            say(f"A table to be changed is in use: trying again in {pause:g} s.")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def invalid_indexes() -> list[str]:
    """Return the indexes whose CREATE INDEX CONCURRENTLY is under way or was interrupted."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
        return [name for (name,) in cursor.fetchall()]


@contextmanager
def _only_release(until: float, say: Say) -> Iterator[None]:
    """Hold the database's lock for releases, so that only one release works at a time.

    The lock belongs to a transaction of its own and not to a session, because PgBouncer does not keep a session for us.
    """
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
        execute(set_lock_timeout(LOCK_SECONDS), None, False, context)
    return execute(sql, params, many, context)
