"""Reads pages from an index without OFFSET, by comparing several columns at once: `(a, b) < (x, y)`."""

from collections.abc import Sequence
from typing import Any

from django.db.models import BooleanField, F, Func, Q, QuerySet, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThan


class _Row(Func):
    """The SQL row value `(a, b)`."""

    template = "(%(expressions)s)"
    output_field = BooleanField()


def before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the condition that a row comes before this place in the order of these fields."""
    return _first_field("lte", fields, place) & Q(LessThan(*_rows(fields, place)))


def not_before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the condition that a row is at this place or after it."""
    return _first_field("gte", fields, place) & Q(GreaterThanOrEqual(*_rows(fields, place)))


def merged(parts: Sequence[QuerySet[Any]], order: Sequence[str], count: int) -> QuerySet[Any]:
    """Returns the first `count` rows, in this order, of querysets that share no row.

    If an index gives each queryset in order, but not their union, PostgreSQL reads the querysets side by side and skips
    no rows in between.
    """
    first, *others = (part.order_by(*order)[:count] for part in parts)
    return first.union(*others, all=True).order_by(*order)[:count]


def _first_field(comparison: str, fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the condition on the first field alone that follows from a comparison of row values.

    PostgreSQL needs it to leave out partitions, because it leaves out none by the comparison of row values itself.
    """
    return Q(**{f"{fields[0]}__{comparison}": place[0]}) if len(fields) > 1 else Q()


def _rows(fields: Sequence[str], place: Sequence[Any]) -> tuple[_Row, _Row]:
    return _Row(*map(F, fields)), _Row(*map(Value, place))
