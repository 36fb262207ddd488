"""Column types that Django lacks: `json` that is stored as text, and foreign keys that contain the environment.

Tenant tables refer to each other by `(environment_id, id)`. Django knows foreign keys of one column alone, so the
migrations add the constraints, and the fields here have `db_constraint=False`.
"""

from typing import Any

from django.db import models


class JSONAsGivenField(models.JSONField):
    """A `json` column. It keeps the text as it came, whereas `jsonb` would reorder keys and rewrite numbers."""

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Returns the value unchanged, because psycopg has parsed it already."""
        return value


def tenant_key(to: str, **kwargs: Any) -> Any:
    """A foreign key to a row of the same environment. A migration must add its constraint, `(environment_id, id)`."""
    return models.ForeignKey(
        to, on_delete=models.PROTECT, db_constraint=False, db_index=False, **kwargs
    )
