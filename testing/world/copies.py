"""Copies one row thousands of times in one statement, for tests and benchmarks that need many."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Model

from pipedai.sql import execute


def add_copies(
    model: type[Model],
    original: UUID,
    count: int,
    params: Mapping[str, Any] | None = None,
    **changed: str,
) -> None:
    """Inserts `count` copies of a row. `changed` has SQL for the columns that differ, and `params` what it needs. In
    the SQL, `o` is the original, and `n` the number of the copy, from 1 on.
    """
    same = {str(field.column): f"o.{field.column}" for field in model._meta.concrete_fields}
    values = {**same, "id": "gen_random_uuid()", **changed}
    table = model._meta.db_table
    execute(
        f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())}"  # noqa: S608 - of our own words
        f" FROM {table} o, generate_series(1, %(count)s) n WHERE o.id = %(original)s",
        {**(params or {}), "original": original, "count": count},
    )
