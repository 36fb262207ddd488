"""Runs SQL that the ORM can't express, on Django's connection, and returns rows as dicts."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, connections, transaction
from psycopg import Cursor
from psycopg.rows import dict_row

from pipedai.database.base import Prepared
from pipedai.redaction import escape_control, redact_text
from pipedai.replica import where

Row = dict[str, Any]
T = TypeVar("T")

# The present time, for the text of a statement: the time on the database's clock, unless the caller passes `now`. SQL's
# now() is the time when the transaction began, which is too old after a wait for a lock.
NOW = "coalesce(%(now)s::timestamptz, statement_timestamp())"

# The settings last until the transaction ends. A sort that can't be avoided seems so expensive to PostgreSQL before 18
# that it would compile the statement, which takes longer than to execute it.
_NO_SORTING = """
SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
    set_config('jit', 'off', true)
"""


def fetch_all(sql: str, params: Mapping[str, Any]) -> list[Row]:
    return _run(sql, params, Prepared.rows, Cursor[Row].fetchall)


def fetch_one(sql: str, params: Mapping[str, Any]) -> Row | None:
    rows = fetch_all(sql, params)
    return rows[0] if rows else None


def fetch_row(sql: str, params: Mapping[str, Any]) -> Row:
    """Returns the row of a statement that always has one, such as a count."""
    (row,) = fetch_all(sql, params)
    return row


def fetch_by_ids(
    table: str, columns: Collection[str], ids: Collection[tuple[UUID, UUID]]
) -> list[Row]:
    """Returns these columns of a tenant table's rows. Each row is named by its environment's id and its own id. Without
    ids there is no query.

    OFFSET 0 makes PostgreSQL look up each row separately. Otherwise it might choose a plan that reads all rows of the
    environment.
    """
    if not ids:
        return []
    statement = f"""
    SELECT found.* FROM unnest(%(environments)s::uuid[], %(ids)s::uuid[]) named (environment_id, id)
    CROSS JOIN LATERAL (
        SELECT {", ".join(columns)} FROM {table} t
        WHERE t.id = named.id AND t.environment_id = named.environment_id OFFSET 0) found
    """  # noqa: S608 - our own names
    environments, own = map(list, zip(*ids, strict=True))
    return fetch_all(statement, {"environments": environments, "ids": own})


def in_batches(sql: str, params: Mapping[str, Any], key: str = "id") -> Iterator[list[Row]]:
    """Runs a statement again and again, each time for the rows that come after those of the time before. The rows are
    in the order of `key`, a UUID, and the statement names that of the last row as `%(after)s`.
    """
    after = UUID(int=0)
    while rows := fetch_all(sql, {**params, "after": after}):
        yield rows
        after = rows[-1][key]


def execute(sql: str, params: Mapping[str, Any]) -> int:
    return _run(sql, params, Prepared.count, _row_count)


def execute_later(sql: str, params: Mapping[str, Any]) -> None:
    """Runs a statement together with the transaction's next one or its COMMIT, which fails if this one fails."""
    database: Any = connections[where.alias]
    database.validate_no_broken_transaction()
    if _is_watched(database) or not database.prepared.later(sql, params):
        execute(sql, params)


@contextmanager
def planned_for_values() -> Iterator[None]:
    """Makes PostgreSQL plan each statement of the block for its own values, by preparing none. A prepared statement's
    plan is for any values, so it can't know that a value is rare, or use an index of only some values.
    """
    database: Any = connections[where.alias]
    database.ensure_connection()
    driver = database.connection
    kept, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = kept


@contextmanager
def without_sorting() -> Iterator[None]:
    """Makes PostgreSQL read by an index in the order of the statement. Otherwise it may sort a million rows."""
    with transaction.atomic(using=where.alias):
        execute(_NO_SORTING, {})
        yield


def database_now() -> datetime:
    row = fetch_row("SELECT clock_timestamp() AS now", {})
    moment = row["now"]
    assert isinstance(moment, datetime)
    return moment


def takes_writes() -> bool:
    """Whether the server takes writes. A standby or a read-only primary does not. Raises DatabaseError."""
    row = fetch_row("SELECT current_setting('transaction_read_only') = 'off' AS writable", {})
    return bool(row["writable"])


def sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def reason(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0].removesuffix(".")
    return escape_control(redact_text(line))


_row_count: Callable[[Cursor[Row]], int] = attrgetter("rowcount")


def _run(
    sql: str,
    params: Mapping[str, Any],
    run: Callable[[Prepared, str, Mapping[str, Any]], T | None],
    result: Callable[[Cursor[Row]], T],
) -> T:
    """Runs a statement. `run` runs it if it is prepared, and `result` reads its result from a cursor otherwise."""
    database: Any = connections[where.alias]
    if _is_watched(database):
        with database.cursor() as wrapped:
            wrapped.cursor.row_factory = dict_row
            wrapped.execute(sql, params)
            return result(wrapped.cursor)
    # The calls below do what Django's cursor does, but without its wrapper, which takes a fifth of a statement's CPU
    # here, and without psycopg's cursor if the statement is prepared. See docs/decisions/fast-paths.md.
    database.close_if_health_check_failed()
    if database.connection is None:
        database.ensure_connection()
    database.validate_no_broken_transaction()
    with database.wrap_database_errors:
        found = run(database.prepared, sql, params)
        if found is not None:
            return found
        database.prepared.flush()
        with database.connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(sql, params)
            return result(cursor)


def _is_watched(database: Any) -> bool:
    """Whether each statement must pass through Django's cursor, because a wrapper or the debug log wants to see it."""
    return bool(database.execute_wrappers or database.force_debug_cursor)


# The parts of a table that a copy has besides its columns. Foreign keys and triggers are never copied.
_LIKE = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING IDENTITY"
# Reads each table's full name, its columns that can be written, and its indexes, in the given order of tables.
_TABLES = """
SELECT format('%%I.%%I', n.nspname, c.relname), quote_ident(c.relname),
    (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
    (SELECT array_agg(pg_get_indexdef(indexrelid)) FROM pg_index WHERE indrelid = c.oid AND indisvalid)
FROM unnest(%s::text[]) WITH ORDINALITY AS given (name, place)
JOIN pg_class c ON c.oid = given.name::regclass JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY place
"""


def use_own_copies(tables: Mapping[str, str], params: Mapping[str, Any]) -> None:
    """Replaces tables by copies for this connection, so that a transaction that will be rolled back can write without
    locks for which others would wait (docs/decisions/rehearsals.md). Statements of this connection that name one of the
    tables find its copy, which nobody else sees. The copy has the table's indexes, and the rows that meet the condition
    in `tables`. Tables are copied in the given order. The caller must not run prepared statements.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TABLES, [[*tables]])
        for condition, (real, name, columns, indexes) in zip(
            tables.values(), cursor.fetchall(), strict=True
        ):
            own = f"pg_temp.{name}"
            cursor.execute(f"CREATE TABLE {own} (LIKE {real} {_LIKE})")
            copy = f"INSERT INTO {own} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {real}"  # noqa: S608
            cursor.execute(f"{copy} WHERE {condition}", params)
            for index in indexes or ():
                head, _, rest = index.partition(" USING ")
                cursor.execute(f"{head.partition(' ON ')[0]} ON {own} USING {rest}")
