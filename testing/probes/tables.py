"""Reads the whole database, and finds the columns that contain a text."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db import connection


def contents() -> dict[str, Counter[str]]:
    """Returns every row of every table as text, as one statement reads them."""
    tables = _all_tables()
    found: dict[str, Counter[str]] = {table: Counter() for table in tables}
    with connection.cursor() as cursor:
        cursor.execute(_every_row(_used(tables), "coalesce(array_agg(t::text), '{}')"))
        found |= {table: Counter(rows) for table, rows in cursor.fetchall()}
    return found


def contents_as_text() -> dict[str, str]:
    """Returns all rows of each table that has any as one text. It takes two statements, so every test can use it.

    In a transaction it reads only the tables to which this transaction wrote, which takes a third of the time.
    """
    tables = _written_tables() if connection.in_atomic_block else _used(_all_tables())
    if not tables:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_every_row(tables, "string_agg(t::text, E'\n')", "HAVING count(*) > 0"))
        return dict(cursor.fetchall())


def _every_row(tables: Iterable[str], rows: str, having: str = "") -> str:
    """Returns the statement that reads tables, and a partitioned table as a whole, with an aggregate of their rows."""
    return " UNION ALL ".join(
        f"SELECT '{table}', {rows} FROM \"{table}\" t {having}"  # noqa: S608
        for table in tables
    )


def _all_tables() -> dict[str, bool]:
    """Returns the names of all tables, and whether they have a page in which there may be rows. They are looked up each
    time, because a test may make some of its own.
    """
    rows = _read(
        # `pg_partition_tree` returns nothing for a table without partitions.
        "SELECT t.relname, sum(pg_relation_size(coalesce(part.relid, t.oid))) > 0"
        " FROM pg_class t LEFT JOIN pg_partition_tree(t.oid) part ON true"
        " WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition"
        " AND t.relnamespace = current_schema()::regnamespace GROUP BY t.relname ORDER BY t.relname"
    )
    return dict(rows)


def _used(tables: dict[str, bool]) -> list[str]:
    """Returns those of `_all_tables()` that may have rows. A statement about the others would take as long to plan."""
    return [table for table, has_pages in tables.items() if has_pages]


def _written_tables() -> list[str]:
    """Returns the names of the tables in which the current transaction has inserted or updated rows."""
    rows = _read(
        "SELECT DISTINCT whole.relname FROM pg_class t"
        " JOIN pg_class whole ON whole.oid = coalesce(pg_partition_root(t.oid), t.oid)"
        " WHERE t.relkind = 'r' AND t.relnamespace = current_schema()::regnamespace"
        " AND (pg_stat_get_xact_tuples_inserted(t.oid) > 0 OR pg_stat_get_xact_tuples_updated(t.oid) > 0)"
    )
    return [table for (table,) in rows]


def _read(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def columns_with(*needles: str) -> list[str]:
    """Returns the columns, as `table.column`, that contain one of these strings as text or as bytes."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND table_name = %s",
                [table],
            )
            for column, kind in cursor.fetchall():
                value = (
                    f'"{column}"' if kind == "bytea" else f"convert_to(\"{column}\"::text, 'UTF8')"
                )
                cursor.execute(
                    f'SELECT EXISTS (SELECT FROM "{table}", unnest(%s::text[]) needle'  # noqa: S608
                    f" WHERE position(convert_to(needle, 'UTF8') in {value}) > 0)",
                    [list(needles)],
                )
                if cursor.fetchone() == (True,):
                    found.append(f"{table}.{column}")
    return found
