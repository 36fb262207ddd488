"""Walks an index by comparing whole rows, `(a, b) < (x, y)`: pages without OFFSET."""

from collections.abc import Sequence
from typing import Any

from django.db.models import BooleanField, F, Func, Q, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThan


class _Row(Func):
    """`(a, b)` as one value."""

    template = "(%(expressions)s)"
    output_field = BooleanField()


def before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """The condition that a row comes before this place in the order of these fields."""
    return _first_field("lte", fields, place) & Q(LessThan(*_rows(fields, place)))


def not_before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """The condition that a row is at this place or after it."""
    return _first_field("gte", fields, place) & Q(GreaterThanOrEqual(*_rows(fields, place)))


def _first_field(comparison: str, fields: Sequence[str], place: Sequence[Any]) -> Q:
    """What the comparison of rows says of their first field, for PostgreSQL, which draws no conclusions from that: it
    leaves no partition out, and may begin its walk where another bound of this field is.
    """
    return Q(**{f"{fields[0]}__{comparison}": place[0]}) if len(fields) > 1 else Q()


def _rows(fields: Sequence[str], place: Sequence[Any]) -> tuple[_Row, _Row]:
    return _Row(*map(F, fields)), _Row(*map(Value, place))
