"""Column types that Django lacks: `json` that is stored as text, and foreign keys that include the environment.

Tables with tenants' rows refer to each other by `(environment_id, id)`. Django's foreign keys have one column only.
Migrations therefore add the constraints with two columns in SQL, and the fields of this module have
`db_constraint=False`.
"""

import json
from functools import partial
from typing import Any

from django.db import models
from psycopg.types.json import Json


class JSONAsGivenField(models.JSONField):
    """A column of PostgreSQL's type `json`. It keeps the text as it came, whereas `jsonb` would reorder keys and
    rewrite numbers.
    """

    def db_type(self, connection: Any) -> str:
        return "json"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Returns a value that psycopg sends as `json`. Django sends `jsonb`, which loses the order of keys."""
        if value is None or hasattr(value, "as_sql"):
            return super().get_db_prep_value(value, connection, prepared)
        return Json(value, dumps=partial(json.dumps, ensure_ascii=False))

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
