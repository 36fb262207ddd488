"""Column types that Django lacks: `json` that is stored as text, and foreign keys that include the environment.

Tables with tenants' rows refer to each other by `(environment_id, id)`. Django's foreign keys have one column only. So
migrations add these constraints in SQL, and the fields here have `db_constraint=False`.
"""

from typing import Any

from django.db import models


class JSONAsGivenField(models.JSONField):
    """A column of PostgreSQL's type `json`. It keeps the text as it came, whereas `jsonb` would reorder keys and
    rewrite numbers.
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Returns the value unchanged, because psycopg has parsed it already."""
        return value


def tenant_key(to: str, **kwargs: Any) -> Any:
    """Makes a foreign key to a row of the same environment. A migration must add its constraint on `(environment_id,
    id)` in SQL.
    """
    return models.ForeignKey(
        to, on_delete=models.PROTECT, db_constraint=False, db_index=False, **kwargs
    )
