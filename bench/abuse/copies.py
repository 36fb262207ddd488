"""Makes thousands of rows in the database as copies of one that the API made."""

from bench.stack import Database

_COLUMNS = """
SELECT string_agg(column_name, ', ' ORDER BY ordinal_position) AS names
FROM information_schema.columns
WHERE table_schema = current_schema AND table_name = '{table}' AND column_name <> ALL('{{{changed}}}')
"""


def copy_row(on: Database, table: str, row_id: str, count: int, **changed: str) -> None:
    """Insert `count` copies of a row. `changed` holds SQL for the columns that differ; `n` in it is the copy's number.

    It reads the other columns from the catalogue, so that it also copies columns that later migrations add.
    """
    same = on.one(_COLUMNS.format(table=table, changed=",".join(changed)))["names"]
    on.execute(
        f"INSERT INTO {table} ({', '.join(changed)}, {same})"
        f" SELECT {', '.join(changed.values())}, {same}"
        f" FROM {table}, generate_series(1, {count}) AS n WHERE {table}.id = '{row_id}'"
    )
