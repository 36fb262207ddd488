"""How our serializer fields look in the schema, where that depends on the field or on the direction."""

# mypy: disallow-untyped-calls=False

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension

from pipedai.api.fields import MoneyField, TextField
from pipedai.api.schema.operation import Schema

_DECIMAL = r"^\d+(\.\d+)?$"


class Text(OpenApiSerializerFieldExtension):
    """A string; where it is trimmed, spaces alone are no text."""

    target_class = TextField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        """Its length is added by drf-spectacular, from the field's validators."""
        field = self.target
        trimmed = field.trim_whitespace and not field.allow_blank and direction == "request"
        return {"type": "string", "pattern": r"\S"} if trimmed else {"type": "string"}


class Money(OpenApiSerializerFieldExtension):
    """A decimal string, or on the way in a number."""

    target_class = MoneyField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        """By direction."""
        text: Schema = {"type": "string", "pattern": _DECIMAL}
        if direction == "response":
            return text
        number: Schema = {"type": "number", "minimum": 0, "maximum": int(MoneyField.MAX)}
        return {"oneOf": [number, text]}
