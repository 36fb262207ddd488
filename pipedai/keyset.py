"""Walks an index by comparing whole rows, `(a, b) < (x, y)`: pages without OFFSET."""

from collections.abc import Sequence
from typing import Any

from django.db.models import BooleanField, F, Func, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThan


class _Row(Func):
    """`(a, b)` as one value."""

    template = "(%(expressions)s)"
    output_field = BooleanField()


def before(fields: Sequence[str], place: Sequence[Any]) -> LessThan:
    """The condition that a row comes before this place in the order of these fields."""
    return LessThan(_Row(*map(F, fields)), _Row(*map(Value, place)))


def not_before(fields: Sequence[str], place: Sequence[Any]) -> GreaterThanOrEqual:
    """The condition that a row is at this place or after it."""
    return GreaterThanOrEqual(_Row(*map(F, fields)), _Row(*map(Value, place)))
