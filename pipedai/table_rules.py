"""The words in which a model says what its table refuses, and by which indexes its rows are found. A migration says by
`tenant_key` what Django can't: a foreign key between tables of tenants, which also compares the environment.
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
    """Return the operation after which a tenant key may refer to the table. It is none of the model's creation, because
    Django makes that one's constraints at the end of a migration, and the keys need this one before.
    """
    return AddConstraint(model, unique(f"{table}_in_environment", ["environment", "id"]))


def tenant_key(table: str, column: str, parent: str, then: str = "") -> RunSQL:
    """Return the operation that adds the key of `table.column` to `parent`. `then` ends its SQL: what a DELETE of the
    parent does, or that the check is deferred.

    A row can so refer only to rows of its own environment, whatever code wrote it (docs/architecture.md).
    """
    name = f"{table}_{column.removesuffix('_id')}_in_environment"
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (environment_id, {column}) "
        f"REFERENCES {parent} (environment_id, id) {then}",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )
