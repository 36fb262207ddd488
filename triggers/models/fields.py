"""Kinds of columns that Django has none for.

Foreign keys between tenant tables are composite, `(environment_id, id)`: the migrations add them,
since Django knows only single-column ones; hence `db_constraint=False`.
"""

from typing import Any

from django.db import models


class JSONAsGivenField(models.JSONField):
    """A `json` column: keeps the text as it came (`jsonb` would reorder keys and rewrite numbers)."""

    def db_type(self, connection: Any) -> str:
        """The column's type."""
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """The value: psycopg has parsed it."""
        return value


def tenant_key(to: str, **kwargs: Any) -> Any:
    """A reference to a row of the same environment; its constraint is composite and made by a migration."""
    return models.ForeignKey(
        to, on_delete=models.PROTECT, db_constraint=False, db_index=False, **kwargs
    )
