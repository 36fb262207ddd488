"""Serializer fields that accept only their own JSON type: they refuse `"5"` for a number and 1 for a boolean.

A body declares everything about its field in one place: the bounds, the values that it refuses, and, by `label` and
`help_text`, how the console shows it. Tests derive good and bad values from the field's type
(`testing/world/plain_fields.py`).
"""

import math
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.fields import empty

from pipedai.api.outside_urls import MAX_URL, check_url
from pipedai.clocks import BadTimezone, check_timezone
from pipedai.outgoing.posts import standard_key, target_problem


class TextField(serializers.CharField):
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a string.")
        return super().to_internal_value(data)


class PatternField(TextField, serializers.RegexField):
    """A text that matches a regular expression."""


# The Unicode categories of control characters, line separators and paragraph separators, which a name must not contain.
_BREAKING = frozenset({"Cc", "Zl", "Zp"})
# These invisible Unicode characters change the direction of text (UAX #9). A name must not contain them, because they
# would also turn the text that follows the name.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class NameField(TextField):
    """A name that people give to a resource: one line of visible characters that don't change the text around them."""

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if any(unicodedata.category(c) in _BREAKING or c in _TURNING for c in value):
            raise serializers.ValidationError(
                "Must not hold line breaks, control characters, or what turns the direction of text."
            )
        if value and not any(unicodedata.category(c)[0] in "LNPS" for c in value):
            raise serializers.ValidationError("Must hold something that can be seen.")
        return value


class UrlField(TextField):
    """The URL of a customer's server."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_URL, **kwargs)

    def problem(self, url: str) -> str | None:
        return check_url(url)

    def run_validation(self, data: Any = empty) -> str | None:
        url: str | None = super().run_validation(data)
        if url and (problem := self.problem(url)):
            raise serializers.ValidationError(problem)
        return url


class TargetUrlField(UrlField):
    """A URL to which we send messages. In production it must use https. It must name no private or reserved address."""

    def problem(self, url: str) -> str | None:
        return target_problem(url)


class SigningSecretField(TextField):
    """A secret that signs messages. A secret `whsec_…` holds the key in base64, as in Standard Webhooks."""

    MIN_LENGTH = 16

    def __init__(self, **kwargs: Any) -> None:
        kwargs = {"style": {"input_type": "password"}, **kwargs}
        super().__init__(
            min_length=self.MIN_LENGTH, max_length=1024, trim_whitespace=False, **kwargs
        )

    def run_validation(self, data: Any = empty) -> str | None:
        secret: str | None = super().run_validation(data)
        try:
            standard_key(secret or "")
        except ValueError:
            raise serializers.ValidationError("After whsec_ it must be base64.") from None
        return secret


class TimezoneField(TextField):
    """The IANA name of a time zone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=64, **kwargs)

    def run_validation(self, data: Any = empty) -> str | None:
        value: str | None = super().run_validation(data)
        try:
            if value is not None:
                check_timezone(value)
        except BadTimezone as error:
            raise serializers.ValidationError(str(error)) from None
        return value


class IdField(serializers.UUIDField):
    """An id, as a JSON string with a UUID in its usual form."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str) or len(data) != 36:
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("Must be a whole number.")
        return data


class TrueFalseField(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class MoneyField(serializers.Field[Decimal | None, Any, Decimal | None, Any]):
    """US dollars in a run's outcome: a number or a string, at least 0, rounded to six decimal places. An impossible
    amount becomes None, because an error would lose the whole outcome.
    """

    PLACES = Decimal("0.000001")
    MAX = Decimal(99999999)

    default_error_messages = {"invalid": "Must be a number or a decimal string."}

    def to_internal_value(self, data: Any) -> Decimal | None:
        amount = self.read_number(data)
        if not amount.is_finite() or not 0 <= amount <= self.MAX:
            return None
        return amount.quantize(self.PLACES)

    def read_number(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, str | int | float):
            self.fail("invalid")
        try:
            return Decimal(str(data))
        except InvalidOperation:
            self.fail("invalid")

    def to_representation(self, value: Decimal | None) -> Decimal | None:
        return value


class ListField(serializers.ListField):
    """A list with a `max_length`, which is checked before the items. Otherwise each item of a list that is too long
    would be checked, and might add an error of its own.
    """

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and self.max_length is not None and len(data) > self.max_length:
            raise serializers.ValidationError(
                self.error_messages["max_length"].format(max_length=self.max_length)
            )
        items: list[Any] = super().to_internal_value(data)
        return items


_AMOUNT = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?", re.ASCII)


class AmountField(MoneyField):
    """An amount of US dollars that a person sets, at least 0, with up to six decimal places."""

    def __init__(self, *, above_zero: bool = False, **kwargs: Any) -> None:
        self.above_zero = above_zero
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, str) and not _AMOUNT.fullmatch(data):
            self.fail("invalid")
        amount = self.read_number(data)
        if not amount.is_finite() or amount < 0 or (self.above_zero and not amount):
            least = "more than 0" if self.above_zero else "at least 0"
            raise serializers.ValidationError(f"Must be {least}.")
        if amount > self.MAX:
            raise serializers.ValidationError(f"Must be at most {self.MAX:,}.")
        exact = amount.quantize(self.PLACES)
        if exact != amount:
            raise serializers.ValidationError("Must have at most six decimal places.")
        return exact


def is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
