"""Reads pages from an index without OFFSET, by comparing several columns at once: `(a, b) < (x, y)`."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, F, Func, Q, QuerySet, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThan


class _Row(Func):
    """The SQL row value `(a, b)`, for comparing several columns at once."""

    template = "(%(expressions)s)"
    output_field = BooleanField()


def before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the condition that a row comes before the position `place`, which holds a value for each of `fields`."""
    return _first_field("lte", fields, place) & Q(LessThan(*_rows(fields, place)))


def not_before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the condition that a row is at the position `place` or comes after it.

    `place` holds a value for each of `fields`.
    """
    return _first_field("gte", fields, place) & Q(GreaterThanOrEqual(*_rows(fields, place)))


def usual(value: UUID | str) -> Func:
    """Returns a value to compare a column with, of which PostgreSQL expects as many rows as of others in the column.

    Of an id that is new since the last ANALYZE it would expect one row or none. All indexes that begin with the column
    would then look equally good to it, also one that leaves the other filters to be tried row by row. The same goes for
    a word that it takes for the only one.
    """
    return Func(Value(value), template="(SELECT %(expressions)s)")


def merged(parts: Sequence[QuerySet[Any]], order: Sequence[str], count: int) -> QuerySet[Any]:
    """Returns the first `count` rows, in this order, of several querysets that share no row.

    An index may return the rows of each queryset in order, but not the rows of all of them together. PostgreSQL then
    reads the querysets side by side and merges them, and reads few rows more than needed.
    """
    first, *others = (part.order_by(*order)[:count] for part in parts)
    return first.union(*others, all=True).order_by(*order)[:count] if others else first


def _first_field(comparison: str, fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns a condition on the first field alone, which is true of all rows that the whole comparison selects.

    With this condition PostgreSQL skips partitions of a table, which it can't do by a comparison of row values.
    """
    return Q(**{f"{fields[0]}__{comparison}": place[0]}) if len(fields) > 1 else Q()


def _rows(fields: Sequence[str], place: Sequence[Any]) -> tuple[_Row, _Row]:
    return _Row(*map(F, fields)), _Row(*map(Value, place))
