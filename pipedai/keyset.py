"""Walks indexes by comparing whole rows, `(a, b) < (x, y)`: pages without OFFSET."""

from collections.abc import Sequence
from typing import Any

from django.db.models import BooleanField, F, Func, Q, QuerySet, Value
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


def merged(parts: Sequence[QuerySet[Any]], order: Sequence[str], count: int) -> QuerySet[Any]:
    """The first rows in this order, so many, of parts that have none in common: where an index orders each part but not
    all of them, PostgreSQL then walks the parts side by side, and need not pass over the rows between theirs.
    """
    first, *others = (part.order_by(*order)[:count] for part in parts)
    return first.union(*others, all=True).order_by(*order)[:count]


def _first_field(comparison: str, fields: Sequence[str], place: Sequence[Any]) -> Q:
    """What the comparison of rows says of their first field: by the comparison itself PostgreSQL leaves no partition
    out.
    """
    return Q(**{f"{fields[0]}__{comparison}": place[0]}) if len(fields) > 1 else Q()


def _rows(fields: Sequence[str], place: Sequence[Any]) -> tuple[_Row, _Row]:
    return _Row(*map(F, fields)), _Row(*map(Value, place))
