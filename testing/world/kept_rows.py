"""Makes the cast once in a process, and then writes the same rows into the transaction of each test that wants it.

The services take as long to make a cast as most tests take for all the rest.
"""

import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from pipedai.api import write_rate
from pipedai.watches import watches
from testing.probes.planted import Planted, plant_all, planted
from testing.world.cast import Cast, make_cast
from workspaces.encryption.alarms import alarms

_INSERT = re.compile(r'\s*INSERT INTO "?(\w+)')
# This query writes the INSERT of one table. Every time in the rows becomes a time before that of the transaction.
_STATEMENT = """
SELECT format('INSERT INTO %%I (%%s) VALUES %%s', %(table)s::text, %(columns)s::text, string_agg(row, ', '))
FROM (SELECT '(' || concat_ws(', ', {values}) || ')' AS row FROM "{table}" t) AS rows
HAVING count(*) > 0
"""
_COLUMNS = """
SELECT quote_ident(attname), atttypid = 'timestamptz'::regtype FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


@dataclass(frozen=True)
class KeptCast:
    """A cast that the services made, and the statements that write its rows once more."""

    # The pickled cast: reading it takes a third of the time of a deep copy.
    cast: bytes
    made_at: datetime
    statements: str
    secrets: Planted
    master_keys: tuple[str, ...]

    @classmethod
    def make(cls) -> "KeptCast":
        """Makes the cast in a transaction that is rolled back. Needs empty tables."""
        tables: list[str] = []
        with planted() as secrets, transaction.atomic():
            with connection.execute_wrapper(_noting_tables(tables)):
                cast = make_cast()
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
        return cls(pickle.dumps(cast), made_at, ";\n".join(statements), secrets, master_keys)

    def put_back(self) -> Cast:
        """Writes the rows, as if they had been made when the current transaction began, and returns the cast.

        Each call returns new objects. The ids, tokens and keys are always the same. A test with other master keys gets
        a cast of its own, whose data keys lie under these.
        """
        if tuple(settings.MASTER_KEYS) != self.master_keys:
            return make_cast()
        plant_all(self.secrets)
        _forget()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT transaction_timestamp()")
            (now,) = cursor.fetchone()
            cursor.execute(self.statements)
        cast: Cast = pickle.loads(self.cast)  # noqa: S301 - our own bytes
        _move(vars(cast).values(), now - self.made_at, set())
        return cast


def _noting_tables(tables: list[str]) -> Callable[..., Any]:
    """Returns a wrapper of `execute` that adds the table of each INSERT to the list."""

    def execute_noting(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if found := _INSERT.match(sql):
            tables.append(found[1])
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


def _move(values: Iterable[Any], by: timedelta, moved: set[int]) -> None:
    """Adds `by` to the times of all models among the values, and of the models to which they refer."""
    for model in values:
        if isinstance(model, Model) and id(model) not in moved:
            moved.add(id(model))
            for name, value in vars(model).items():
                if isinstance(value, datetime):
                    setattr(model, name, value + by)
            _move(model._state.fields_cache.values(), by, moved)


def _forget() -> None:
    """Forgets what this process remembers of the tenants of earlier tests, since this one has the same ids."""
    write_rate._buckets._buckets.clear()
    alarms._told.clear()
    watches.forget()
