"""Reads the whole database, and finds the columns that contain a text."""

from collections import Counter

from django.db import connection


def contents() -> dict[str, Counter[str]]:
    """Returns every row of every table as text, as one statement reads them."""
    with connection.cursor() as cursor:
        cursor.execute(_every_row("coalesce(array_agg(t::text), '{}')"))
        return {table: Counter(rows) for table, rows in cursor.fetchall()}


def contents_as_text() -> dict[str, str]:
    """Returns all rows of each table that has any as one text. It takes two statements, so every test can use it."""
    with connection.cursor() as cursor:
        cursor.execute(_every_row("string_agg(t::text, E'\n')", "HAVING count(*) > 0"))
        return dict(cursor.fetchall())


def _every_row(rows: str, having: str = "") -> str:
    """Returns the statement that reads every table, and a partitioned table as a whole, with an aggregate of its rows.

    The tables are looked up each time, because a test may make some of its own.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = current_schema()::regnamespace ORDER BY relname"
        )
        tables = [table for (table,) in cursor.fetchall()]
    return " UNION ALL ".join(
        f"SELECT '{table}', {rows} FROM \"{table}\" t {having}"  # noqa: S608
        for table in tables
    )


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
