"""Makes the cast, or the cast and the stage, once in a process, and then writes the same rows for each test.

The services take as long to make a cast as most tests take for all the rest, and several times as long for a stage.
"""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from accounts import issuer
from pipedai.api import throttling
from pipedai.wakeups import watches
from testing.probes.planted import Planted, plant_all, planted
from triggers.events import receiving, refusals
from workspaces.encryption import keys

T = TypeVar("T")

_INSERT = re.compile(r'\bINSERT INTO "?(\w+)')
# This query writes the INSERT of one table. Every time in the rows becomes a time before that of the transaction.
_STATEMENT = """
SELECT format('INSERT INTO %%I (%%s) VALUES %%s', %(table)s::text, %(columns)s::text, string_agg(row, ', '))
FROM (SELECT '(' || concat_ws(', ', {values}) || ')' AS row FROM "{table}" t) AS rows
HAVING count(*) > 0
"""
_COLUMNS = """
SELECT quote_ident(attname), atttypid = 'timestamptz'::regtype FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = ''
ORDER BY attnum
"""


@dataclass(frozen=True)
class Kept(Generic[T]):
    """What `build` made with the services, and the statements that write its rows once more."""

    build: Callable[[], T]
    # Reading what was pickled takes a third of the time of a deep copy.
    pickled: bytes
    made_at: datetime
    statements: str
    secrets: Planted
    master_keys: tuple[str, ...]

    @classmethod
    def make(cls, build: Callable[[], T]) -> "Kept[T]":
        """Calls `build` in a transaction that is rolled back. Needs empty tables."""
        tables: list[str] = []
        with planted() as secrets, transaction.atomic():
            with connection.execute_wrapper(_noting_tables(tables)):
                built = build()
            with connection.cursor() as cursor:
                cursor.execute("SELECT statement_timestamp()")
                (made_at,) = cursor.fetchone()
                # In this order no row refers to a later one.
                statements = [
                    statement
                    for table in dict.fromkeys(tables)
                    if (statement := _statement(cursor, table, made_at))
                ]
            transaction.set_rollback(True)
        master_keys = tuple(settings.MASTER_KEYS)
        written = ";\n".join(statements)
        return cls(build, pickle.dumps(built), made_at, written, secrets, master_keys)

    def put_back(self) -> T:
        """Writes the rows, as if they had been made when the current transaction began, and returns what was made.

        Each call returns new objects. The ids, tokens and keys are always the same, but for ids from a sequence, which
        a renewed database counts anew. For a test with other master keys everything is made anew, so that its data keys
        lie under these.
        """
        if tuple(settings.MASTER_KEYS) != self.master_keys:
            return self.build()
        plant_all(self.secrets)
        _forget()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT transaction_timestamp()")
            (now,) = cursor.fetchone()
            cursor.execute(self.statements)
        built: T = pickle.loads(self.pickled)  # noqa: S301 - our own bytes
        _move(built, now - self.made_at, set())
        return built


def _noting_tables(tables: list[str]) -> Callable[..., Any]:
    """Returns a wrapper of `execute` that adds the table of each INSERT to the list."""

    def execute_noting(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        tables.extend(_INSERT.findall(sql))
        return execute(sql, *rest)

    return execute_noting


def _statement(cursor: Any, table: str, made_at: datetime) -> str | None:
    """Returns the INSERT of the table's rows, or None if it has none: a statement may have inserted nothing."""
    cursor.execute(_COLUMNS, [table])
    columns = dict(cursor.fetchall())
    values = [
        f"coalesce(format('transaction_timestamp() - %%L::interval', %(made_at)s - t.{name}), 'NULL')"
        if is_time
        else f"quote_nullable(t.{name}::text)"
        for name, is_time in columns.items()
    ]
    query = _STATEMENT.format(table=table, values=", ".join(values))
    cursor.execute(query, {"table": table, "columns": ", ".join(columns), "made_at": made_at})
    found = cursor.fetchone()
    return str(found[0]) if found else None


def _move(made: Any, by: timedelta, moved: set[int]) -> None:
    """Adds `by` to the times of a model and of the models to which it refers, or of all models in a dataclass."""
    if is_dataclass(made):
        for field in fields(made):
            _move(getattr(made, field.name), by, moved)
    elif isinstance(made, Model) and id(made) not in moved:
        moved.add(id(made))
        for name, value in vars(made).items():
            if isinstance(value, datetime):
                setattr(made, name, value + by)
        for value in made._state.fields_cache.values():
            _move(value, by, moved)


def _forget() -> None:
    """Forgets what this process remembers of the tenants of earlier tests, since this one has the same ids."""
    throttling._buckets._buckets.clear()
    receiving._signed._buckets.clear()
    receiving._unsigned._buckets.clear()
    refusals._writes._buckets.clear()
    refusals._unwritten.clear()
    keys._told._buckets.clear()
    watches.forget()
    issuer.forget()
