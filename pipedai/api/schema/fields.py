"""Describes our own serializer fields in the schema, where drf-spectacular can't do it alone."""

# mypy: disallow-untyped-calls=False

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension

from pipedai.api.fields import AmountField, MoneyField, TextField
from pipedai.api.schema.operation import Schema

_DECIMAL = r"^\d+(\.\d+)?$"


class Text(OpenApiSerializerFieldExtension):
    """Describes a TextField. If it trims a request's text, the pattern demands a character that is no space."""

    target_class = TextField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        """Returns the schema without lengths, which drf-spectacular adds from the field's validators."""
        field = self.target
        trimmed = field.trim_whitespace and not field.allow_blank and direction == "request"
        return {"type": "string", "pattern": r"\S"} if trimmed else {"type": "string"}


class Money(OpenApiSerializerFieldExtension):
    """Describes a MoneyField, which is a decimal string in answers, and a string or a number in requests."""

    target_class = MoneyField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        """Returns the schema of an amount, in requests or in answers as `direction` says."""
        text: Schema = {"type": "string", "pattern": _DECIMAL}
        if direction == "response":
            return text
        number: Schema = {"type": "number", "minimum": 0, "maximum": int(MoneyField.MAX)}
        return {"oneOf": [number, text]}


class Amount(OpenApiSerializerFieldExtension):
    """Describes an AmountField as a MoneyField whose bounds are kept."""

    target_class = AmountField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> Schema:
        """Returns the schema of an amount that people set."""
        least = "exclusiveMinimum" if self.target.above_zero else "minimum"
        number: Schema = {"type": "number", least: 0, "maximum": int(AmountField.MAX)}
        text: Schema = {"type": "string", "pattern": r"^[0-9]{1,8}(\.[0-9]{1,6})?$"}
        return {"oneOf": [number, text]}
