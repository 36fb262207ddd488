"""Runs the statements that the ORM can't say, on Django's connection, and hands rows out as dicts."""

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from psycopg import Cursor
from psycopg.rows import dict_row

from pipedai.redaction import escape_control, redact_text

Row = dict[str, Any]
T = TypeVar("T")

# The moment of a statement, for its text: the database's clock, unless the caller passes `now` in.
# Not `now()`, which is stale after a wait for a lock.
NOW = "coalesce(%(now)s::timestamptz, statement_timestamp())"


def fetch_all(sql: str, params: Mapping[str, Any]) -> list[Row]:
    """The rows of a query or of a RETURNING clause, each by its column names."""
    return _run(sql, params, Cursor[Row].fetchall)


def fetch_one(sql: str, params: Mapping[str, Any]) -> Row | None:
    """The first row, or None."""
    rows = fetch_all(sql, params)
    return rows[0] if rows else None


def execute(sql: str, params: Mapping[str, Any]) -> int:
    """Runs a statement; how many rows it touched."""
    return _run(sql, params, _row_count)


def database_now() -> datetime:
    """The database's clock: the only one that decides what is due."""
    row = fetch_one("SELECT clock_timestamp() AS now", {})
    assert row is not None
    moment = row["now"]
    assert isinstance(moment, datetime)
    return moment


def sqlstate(error: DatabaseError) -> str | None:
    """PostgreSQL's code for the error; None if the server said nothing."""
    return getattr(error.__cause__, "sqlstate", None)


def reason(error: Exception) -> str:
    """What the database, or the way to it, said of an error: its first line, safe to show, without a full stop."""
    line = str(error).strip().partition("\n")[0].removesuffix(".")
    return escape_control(redact_text(line))


_row_count: Callable[[Cursor[Row]], int] = attrgetter("rowcount")


def _run(sql: str, params: Mapping[str, Any], result: Callable[[Cursor[Row]], T]) -> T:
    database: Any = connections[DEFAULT_DB_ALIAS]
    if database.execute_wrappers or database.queries_logged:
        with database.cursor() as wrapped:
            wrapped.cursor.row_factory = dict_row
            wrapped.execute(sql, params)
            return result(wrapped.cursor)
    # As Django does it, but without its wrapper around each cursor, which takes a fifth of a statement's CPU here.
    # See docs/decisions/fast-paths.md.
    database.close_if_health_check_failed()
    database.ensure_connection()
    database.validate_no_broken_transaction()
    with (
        database.wrap_database_errors,
        database.connection.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(sql, params)
        return result(cursor)
