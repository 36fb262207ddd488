"""The column type that Django lacks: `json`, stored as text."""

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
