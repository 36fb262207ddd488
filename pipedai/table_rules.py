"""Functions with which models declare the constraints and indexes of their tables. Migrations use `tenant_key` for a
foreign key that Django can't declare: one between tables of tenants, which also compares the environment.
"""

from collections.abc import Sequence
from typing import Any

from django.db.migrations import AddConstraint, RunSQL
from django.db.models import CheckConstraint, Index, Q, UniqueConstraint


def has(*columns: str, **more: Any) -> Q:
    """Returns the condition that none of the columns is NULL, and that `more` holds, as in a Q."""
    return Q(**{f"{column}__isnull": False for column in columns}, **more)


def lacks(*columns: str, **more: Any) -> Q:
    """Returns the condition that all of the columns are NULL, and that `more` holds, as in a Q."""
    return Q(**{f"{column}__isnull": True for column in columns}, **more)


def check(name: str, condition: Q) -> CheckConstraint:
    return CheckConstraint(condition=condition, name=name)


def unique(name: str, columns: Sequence[str], *, where: Q | None = None) -> UniqueConstraint:
    return UniqueConstraint(fields=columns, name=name, condition=where)


def index(
    name: str,
    columns: Sequence[str],
    *,
    where: Q | None = None,
    include: Sequence[str] | None = None,
) -> Index:
    return Index(fields=columns, name=name, condition=where, include=include)


def tenant_parent(model: str, table: str) -> AddConstraint:
    """Return the operation that adds the unique constraint to which tenant keys of other tables refer. The model itself
    does not declare the constraint, because Django would add it at the end of a migration, too late for the keys.
    """
    return AddConstraint(model, unique(f"{table}_in_environment", ["environment", "id"]))


def tenant_key(table: str, column: str, parent: str, then: str = "") -> RunSQL:
    """Return the operation that adds a foreign key from `table.column` to `parent`. Its SQL ends with `then`, which may
    say what a DELETE of the parent does, or that the check is deferred.

    With this key a row can refer only to rows of its own environment, even if our code is wrong (docs/architecture.md).
    """
    name = f"{table}_{column.removesuffix('_id')}_in_environment"
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (environment_id, {column}) "
        f"REFERENCES {parent} (environment_id, id) {then}",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )
