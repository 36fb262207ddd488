"""Locks rows in another session, and shortens the time that sessions of the database wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections

from pipedai.sql import fetch_one
from pipedai.timeouts import Timeouts, set_timeouts_of_role
from testing.processes.worker_process import until

# This is long enough for a statement that waits for no lock, even on a machine that stands still now and then.
SHORT = "500ms"


def shorten_timeouts(*, lock: str = SHORT, statement: str = "0") -> None:
    """Makes all sessions of the test's own database begin with these time-outs, and sets them in this session too."""
    set_timeouts_of_role(Timeouts(lock, statement))
    connections.close_all()


@contextmanager
def held(statement: str, *params: Any) -> Iterator[None]:
    """Holds the locks that a statement takes, in another session, until the block ends."""
    holder = connection.copy()
    holder.set_autocommit(False)
    try:
        with holder.cursor() as cursor:
            cursor.execute(statement, params)
        yield
    finally:
        holder.close()


def all_rows_of(table: str) -> str:
    """Returns the statement that locks a table's rows against everybody but readers."""
    return f'SELECT FROM "{table}" FOR UPDATE'


def wait_until_somebody_waits(seconds: float) -> None:
    """Returns once a session of this database has waited for a lock for this many seconds."""
    until(lambda: (fetch_one(_WAITING, {"seconds": seconds}) or {}).get("waits"))


_WAITING = """
SELECT count(*) > 0 AS waits FROM pg_stat_activity
WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
    AND clock_timestamp() - query_start > make_interval(secs => %(seconds)s)
"""
