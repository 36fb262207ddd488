"""Divides lists into pages, newest first. A signed cursor names the place where the next page begins."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import accumulate
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.core import signing
from django.db.models import BooleanField, Count, F, Func, Model, Q, QuerySet, Value
from django.db.models.lookups import GreaterThan, GreaterThanOrEqual, LessThan
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api.errors import Invalid
from pipedai.sql import planned_for_values, without_sorting


class _Row(Func):
    """The SQL row value `(a, b)`, for comparing several columns at once."""

    template = "(%(expressions)s)"
    output_field = BooleanField()


def usual(value: UUID | str) -> Func:
    """Returns an expression that hides the value from PostgreSQL's planner, so that it plans for a usual value. For an
    id that is newer than the last ANALYZE it would expect no rows, and might choose a bad index.
    """
    return Func(Value(value), template="(SELECT %(expressions)s)")


def counts_of(rows: QuerySet[Any], kinds: Mapping[str, Q]) -> dict[str, int]:
    """Returns how many of the rows are of each kind. It takes one query, which reads all of them."""
    # The prefix `of_` is needed because a kind may have the same name as a column that its condition compares.
    found = rows.aggregate(**{f"of_{name}": Count("pk", filter=kinds[name]) for name in kinds})
    return {name: found[f"of_{name}"] for name in kinds}


def before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    return _first_field("lte", fields, place) & Q(LessThan(*_rows(fields, place)))


def not_before(fields: Sequence[str], place: Sequence[Any]) -> Q:
    return _first_field("gte", fields, place) & Q(GreaterThanOrEqual(*_rows(fields, place)))


def merged(
    parts: Sequence[QuerySet[Any]], order: Sequence[str], count: int, *, shared: bool = False
) -> QuerySet[Any]:
    """Returns the first `count` rows of several querysets. They must have no row in common, unless `shared`, which
    drops duplicates. PostgreSQL reads each by its index and merges them, so it reads few rows more than needed.
    """
    first, *others = (part.order_by(*order)[:count] for part in parts)
    return first.union(*others, all=not shared).order_by(*order)[:count] if others else first


def _first_field(comparison: str, fields: Sequence[str], place: Sequence[Any]) -> Q:
    """Returns the comparison of the first column, which the whole one implies. By it PostgreSQL skips partitions."""
    return Q(**{f"{fields[0]}__{comparison}": place[0]}) if len(fields) > 1 else Q()


def _rows(fields: Sequence[str], place: Sequence[Any]) -> tuple[_Row, _Row]:
    return _Row(*map(F, fields)), _Row(*map(Value, place))


DEFAULT_LIMIT = 50
MAX_LIMIT = 200
# The most bytes of long texts on one page: about 200 prompts of usual length, or 16 of the longest.
MAX_PAGE_BYTES = 4 * 1024 * 1024

Place = tuple[datetime, UUID]


class KeysetPaginator(BasePagination):
    """Pages of `{ items, nextCursor }`, in descending order of (time, id). A cursor is signed, and valid only for its
    path and filters. It gives no access to rows: the view's query decides that.
    """

    time_field: ClassVar[str] = "created_at"
    id_field: ClassVar[str] = "id"
    # Whether several querysets of one list may have the same row.
    shared: ClassVar[bool] = False
    default_limit: ClassVar[int] = DEFAULT_LIMIT
    # Whether PostgreSQL may sort rows. False makes it read an index that has them in the order of the list.
    sorts: bool = True

    def paginate_parts(
        self, parts: Sequence[Any], request: Request, filter_names: Sequence[str]
    ) -> list[Any]:
        """Returns a page of the rows of several querysets, as of one list. A cursor depends on the parameters in
        `filter_names`. Raises Invalid for bad parameters.
        """
        limit = limit_of(request, self.default_limit)
        self._salt = _salt(request, filter_names)
        if (cursor := request.query_params.get("cursor")) is not None:
            place = self._open(cursor)
            parts = [part.filter(before((self.time_field, self.id_field), place)) for part in parts]
        order = (f"-{self.time_field}", f"-{self.id_field}")
        ordered = (
            parts[0].order_by(*order)
            if len(parts) == 1
            else merged(parts, order, limit + 1, shared=self.shared)
        )
        with planned_for_values(), nullcontext() if self.sorts else without_sorting():
            rows, last = self._read_page(ordered, limit)
        self._next = _sign(self._salt, [last[0].isoformat(), last[1].hex]) if last else None
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"items": data, "nextCursor": self._next})

    def _read_page(self, ordered: Any, limit: int) -> tuple[list[Any], Place | None]:
        rows = list(ordered[: limit + 1])
        return rows[:limit], self._place_of(rows[limit - 1]) if len(rows) > limit else None

    def _place_of(self, row: Model | dict[str, Any]) -> Place:
        read = row.__getitem__ if isinstance(row, dict) else row.__getattribute__
        return read(self.time_field), read(self.id_field)

    def _open(self, cursor: str) -> Sequence[Any]:
        try:
            return self._read_place(signing.Signer(salt=self._salt).unsign_object(cursor))
        except (signing.BadSignature, ValueError, TypeError):
            raise Invalid({"cursor": ["Not a cursor of this list with these filters."]}) from None

    def _read_place(self, signed: list[str]) -> Sequence[Any]:
        moment, row_id = signed
        return datetime.fromisoformat(moment), UUID(row_id)


class HeavyPaginator(KeysetPaginator):
    """Pages of rows with long texts. A first query reads their sizes, and a page has at most MAX_PAGE_BYTES."""

    # A database expression for the size of a row's texts, in bytes.
    weight: ClassVar[Any]

    def _read_page(self, ordered: Any, limit: int) -> tuple[list[Any], Place | None]:
        light = ordered.values("id", self.time_field, page_weight=self.weight)
        candidates = list(light[: limit + 1])
        chosen = self._fitting(candidates[:limit])
        # The chosen rows are read by their ids, so that rows inserted meanwhile don't push the last ones off the page.
        rows = list(ordered.filter(id__in=[row["id"] for row in chosen])) if chosen else []
        return rows, self._place_of(chosen[-1]) if len(candidates) > len(chosen) else None

    def _fitting(self, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sums = accumulate(row["page_weight"] for row in candidates)
        return candidates[: max(1, sum(total <= MAX_PAGE_BYTES for total in sums))]


class SortedPaginator(HeavyPaginator):
    """Pages in ascending order of some expressions, none of which is ever NULL, and then of the id. A cursor has the
    values of the last row, so a row whose values do not change is on exactly one page.
    """

    def __init__(self, *keys: Any) -> None:
        self._keys = {f"key_{n}": each for n, each in enumerate(keys)}

    def paginate_parts(
        self, parts: Sequence[Any], request: Request, filter_names: Sequence[str]
    ) -> list[Any]:
        (rows,) = parts
        limit = limit_of(request, self.default_limit)
        self._salt = _salt(request, filter_names)
        names = [*self._keys, "id"]
        light = rows.annotate(**self._keys)
        keys = [light.query.annotations[name].output_field for name in self._keys]
        self._fields = [*keys, rows.model._meta.pk]
        if (cursor := request.query_params.get("cursor")) is not None:
            light = light.filter(GreaterThan(*_rows(names, self._open(cursor))))
        light = light.order_by(*names).values(*names, page_weight=self.weight)
        with planned_for_values():
            candidates = list(light[: limit + 1])
            chosen = self._fitting(candidates[:limit])
            found = {row["id"]: row for row in rows.filter(id__in=[row["id"] for row in chosen])}
        is_last = len(chosen) == len(candidates)
        place = [] if is_last else [str(chosen[-1][name]) for name in names]
        self._next = _sign(self._salt, place) if place else None
        return [found[row["id"]] for row in chosen if row["id"] in found]

    def _read_place(self, signed: list[str]) -> Sequence[Any]:
        return [field.to_python(text) for field, text in zip(self._fields, signed, strict=True)]


def _sign(salt: str, place: list[str]) -> str:
    return signing.Signer(salt=salt).sign_object(place)


def limit_of(request: Request, default: int) -> int:
    sent = request.query_params.get("limit")
    if sent is None:
        return default
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 3 and 1 <= int(sent) <= MAX_LIMIT):
        raise Invalid({"limit": [f"Must be a whole number from 1 to {MAX_LIMIT}."]})
    return int(sent)


def _salt(request: Request, filter_names: Sequence[str]) -> str:
    sent = sorted(
        (name, value) for name in filter_names for value in request.query_params.getlist(name)
    )
    return f"pipedai.cursor {request.path}?{urlencode(sent)}"
