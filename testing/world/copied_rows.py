"""Copies a row many times, for tests of plans, which need thousands of rows."""

from typing import Any

from django.db.models import Model

from pipedai.sql import execute


def copy_row(model: type[Model], row_id: Any, count: int, **columns: str) -> None:
    """Inserts `count` copies of a row, each with an id of its own.

    `columns` are SQL expressions for the columns that differ, of the original `r` and the copy's number `n`, from 1.
    """
    values = {str(field.column): f"r.{field.column}" for field in model._meta.concrete_fields}
    values |= {"id": "gen_random_uuid()", **columns}
    table = model._meta.db_table
    statement = f"""
    INSERT INTO {table} ({", ".join(values)}) SELECT {", ".join(values.values())}
    FROM {table} r, generate_series(1, %(count)s) n WHERE r.id = %(id)s
    """  # noqa: S608 - of the model's columns
    execute(statement, {"count": count, "id": row_id})


def copy_ended_run(run_id: Any, count: int, **columns: str) -> None:
    """Inserts copies of an ended run, each an hour older than the one before. The newest is of now."""
    from triggers.models import Run

    times = ("available_at", "queued_at", "claimed_at", "started_at", "ended_at")
    at = dict.fromkeys(times, "now() - (n - 1) * interval '1 hour'")
    copy_row(Run, run_id, count, **(at | columns))
