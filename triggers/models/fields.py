"""Column types that Django lacks: `json` stored as text, and foreign keys that include the environment.

Django's foreign keys have one column, so migrations add these constraints in SQL.
"""

import json
from functools import partial
from typing import Any

from django.db import models
from psycopg.types.json import Json


class JSONAsGivenField(models.JSONField):
    """A column of type `json`, which keeps the text: `jsonb` would reorder keys and rewrite numbers."""

    def db_type(self, connection: Any) -> str:
        return "json"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None or hasattr(value, "as_sql"):
            return super().get_db_prep_value(value, connection, prepared)
        return Json(value, dumps=partial(json.dumps, ensure_ascii=False))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value


def tenant_key(to: str, **kwargs: Any) -> Any:
    """A migration must add the key's constraint on `(environment_id, id)` in SQL."""
    return models.ForeignKey(
        to, on_delete=models.PROTECT, db_constraint=False, db_index=False, **kwargs
    )
