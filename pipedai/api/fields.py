"""Serializer fields that take a JSON type at its word: no `"5"` for 5, no 1 for true."""

import math
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from rest_framework import serializers


class TextField(serializers.CharField):
    """A JSON string."""

    def to_internal_value(self, data: Any) -> str:
        """The string; anything else is a field error."""
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)


# Unicode's categories of control characters, line and paragraph separators.
_BREAKING = frozenset({"Cc", "Zl", "Zp"})
# What turns the direction of text around it (UAX #9): overrides, embeddings and isolates, which reach beyond the name.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class NameField(TextField):
    """What people call a thing: one line, that can be seen, and that changes nothing of what stands beside it."""

    def to_internal_value(self, data: Any) -> str:
        """The name; a field error if it could not be shown in a table or a log as it is."""
        value = super().to_internal_value(data)
        if any(unicodedata.category(c) in _BREAKING or c in _TURNING for c in value):
            raise serializers.ValidationError(
                "Must not hold line breaks, control characters, or what turns the direction of text."
            )
        if value and not any(unicodedata.category(c)[0] in "LNPS" for c in value):
            raise serializers.ValidationError("Must hold something that can be seen.")
        return value


class IdField(serializers.UUIDField):
    """An id, as a JSON string with a UUID in its usual form."""

    def to_internal_value(self, data: Any) -> UUID:
        """The id; a number, though a UUID is one, and the other ways to write a UUID are field errors."""
        if not isinstance(data, str) or len(data) != 36:
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        """The number; a string, a boolean or a fraction is a field error."""
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("Must be a whole number.")
        return data


class TrueFalseField(serializers.BooleanField):
    """A JSON boolean."""

    def to_internal_value(self, data: Any) -> bool:
        """True or false; anything else is a field error."""
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class MoneyField(serializers.Field[Decimal | None, Any, Decimal | None, Any]):
    """US dollars ≥ 0: comes in as a number or a string, kept to six decimal places.

    Only workers report money, with a run's outcome: an absurd amount is dropped, and costs no outcome.
    """

    PLACES = Decimal("0.000001")
    MAX = Decimal(99999999)

    def to_internal_value(self, data: Any) -> Decimal | None:
        """The amount, rounded half to even at the sixth place; None for one below 0 or over MAX."""
        if isinstance(data, bool) or not isinstance(data, str | int | float):
            raise serializers.ValidationError("Must be a number or a decimal string.")
        try:
            amount = Decimal(str(data))
            if not amount.is_finite() or not 0 <= amount <= self.MAX:
                return None
            return amount.quantize(self.PLACES)
        except InvalidOperation:
            raise serializers.ValidationError("Must be a number or a decimal string.") from None

    def to_representation(self, value: Decimal | None) -> Decimal | None:
        """As it is: the renderer writes decimals as strings."""
        return value


def is_finite_number(value: Any) -> bool:
    """Whether it is a JSON number that arithmetic can use."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
