"""Makes the foreign keys between tables of tenants, which Django cannot say: each also compares the environment."""

from django.db.migrations import AddConstraint, RunSQL
from django.db.models import UniqueConstraint


def tenant_parent(model: str, table: str) -> AddConstraint:
    """Return the operation after which a tenant key may refer to the table. It is none of the model's creation, because
    Django makes that one's constraints at the end of a migration, and the keys need this one before.
    """
    unique = UniqueConstraint(fields=["environment", "id"], name=f"{table}_in_environment")
    return AddConstraint(model, unique)


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
