"""The columns and constraints that tables of tenants share (docs/architecture.md, Where truth lives)."""

from typing import Any

from django.db import models

from pipedai.ids import new_id
from pipedai.table_rules import check, has, lacks, unique


def environment_key(related_name: str = "+", **kwargs: Any) -> Any:
    """Returns the key to the environment that owns a row. It has no index, because other indexes begin with it."""
    return models.ForeignKey(
        "workspaces.Environment",
        on_delete=models.PROTECT,
        related_name=related_name,
        db_index=False,
        **kwargs,
    )


def tenant_key(to: str, *, related_name: str = "+", **kwargs: Any) -> Any:
    """Returns a key to another table of tenants. A migration must add its constraint on `(environment_id, id)` in SQL
    (`pipedai.table_rules`), because Django's foreign keys have one column.
    """
    return models.ForeignKey(
        to,
        on_delete=models.PROTECT,
        related_name=related_name,
        db_constraint=False,
        db_index=False,
        **kwargs,
    )


def in_environment(table: str) -> models.UniqueConstraint:
    """Returns the constraint to which keys of other tables to `(environment_id, id)` of the table refer."""
    return unique(f"{table}_in_environment", ["environment", "id"])


def has_its_key(table: str, column: str) -> models.CheckConstraint:
    """Returns the constraint that what is sealed in the column is there together with its data key, or not at all."""
    key = f"{column}_key"
    return check(f"{table}_{column}_has_a_key", lacks(column, key) | has(column, key))


class TenantRow(models.Model):
    """A row of one environment, to which it belongs for good."""

    # A UUIDv7. A service that seals a value for the row, or makes a row that refers to it, makes the id before the row.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key()

    class Meta:
        abstract = True
