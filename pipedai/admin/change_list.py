"""Lists that stay fast with two million rows: keyset pages, no counts, and a limit on the rows that a filter reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib.admin.filters import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from unfold.views import ChangeList

from pipedai.admin.filters import AFTER, DatesFilter, RelatedFilter
from pipedai.api.pagination import before, merged, not_before
from pipedai.replica.reading import read_for
from pipedai.sql import planned_for_values

# A filter without an index of its own, or a search by text, reads at most this many rows to fill one page, unless the
# list sets another number (`StaffModelAdmin.looks_through`).
LOOKS_THROUGH = 2_000
# The number for tables that grow with customers and not with their runs: users, environments, workers, triggers.
LOOKS_THROUGH_CUSTOMERS = 50_000

Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """The filters and the order of a part of a list that one index serves. Lists show only such parts."""

    filters: Sequence[str]
    keys: Sequence[str]


class KeysetChangeList(ChangeList):
    """A page of at most `list_per_page` rows, newest first, after the place in `?after=`. Filters that no index covers
    are tested on at most LOOKS_THROUGH rows, and the next page goes on from there.
    """

    def get_filters_params(self, params: Any = None) -> Any:
        found = super().get_filters_params(params)
        found.pop(AFTER, None)
        return found

    def get_filters(self, request: HttpRequest) -> Any:
        """Raises IncorrectLookupParameters for a parameter that is no filter of this list. Django itself would filter
        by any column, so that somebody could guess a password's hash bit by bit.
        """
        if any("\0" in value for sent in request.GET.lists() for value in sent[1]):
            raise IncorrectLookupParameters("PostgreSQL's text knows no NUL.")
        found = super().get_filters(request)
        if others := found[2]:
            raise IncorrectLookupParameters(f"No filters of this list: {', '.join(others)}")
        return found

    def get_results(self, request: HttpRequest) -> None:
        """Reads the rows of the page, from the read replica if it is fit, for Django's list template."""
        staff: Any = request.user
        read_for(staff.pk, lambda: self._read_results(request))

    def _read_results(self, request: HttpRequest) -> None:
        self._admin: Any = self.model_admin
        scoped, keys, is_loose, sent = self._walk(request)
        order = [f"-{key}" for key in keys]
        for dates in self.filter_specs:
            if isinstance(dates, DatesFilter):
                self.queryset, scoped = (
                    dates.within(keys[0], each) for each in (self.queryset, scoped)
                )
        place = _parse(request.GET.get(AFTER, ""), keys)
        rows: Any = self.queryset
        if place is not None:
            rows, scoped = (each.filter(before(keys, place)) for each in (rows, scoped))
        end = None
        if is_loose:
            places = self._places(scoped, sent, keys, self._limit)
            end = next(iter(places[self._limit - 1 : self._limit]), None)
        if end is not None:
            rows = rows.filter(not_before(keys, end))
        if len(self._parts(rows, sent)) > 1:
            with planned_for_values():
                places = list(self._places(rows, sent, keys, self.list_per_page + 1))
            rows = self.queryset.filter(id__in=[place[keys.index("id")] for place in places])
        found = list(rows.order_by(*order)[: self.list_per_page + 1])
        page = found[: self.list_per_page]
        more = len(found) > len(page)
        last = tuple(getattr(page[-1], key) for key in keys) if more else end
        self.result_list = page
        self.result_count = len(page)
        # Django expects the count of all rows here. A count is slow, so the list shows none.
        self.full_result_count = len(page)
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = False
        self.multi_page = False
        self.is_first = place is None
        self.newest_url = self.get_query_string(remove=[AFTER])
        self.older_url = self.get_query_string({AFTER: _format(last)}) if last else ""
        self.looked_through = 0 if more or end is None else self._limit

    @property
    def nothing(self) -> str:
        if self.looked_through:
            return f"None of the {self.looked_through} rows that were looked through matches."
        if self.is_narrowed:
            return "Nothing matches." if self.is_first else "Nothing older matches."
        return str(self._admin.when_empty) if self.is_first else "There is nothing older."

    @property
    def is_narrowed(self) -> bool:
        return bool(self.query or self.get_filters_params())

    @property
    def _limit(self) -> int:
        own: int | None = self._admin.looks_through
        return own or LOOKS_THROUGH

    def _parts(self, rows: Any, sent: Mapping[str, str]) -> Sequence[Any]:
        parts: Sequence[Any] = self._admin.parts_of(rows, sent)
        return parts

    def _places(self, rows: Any, sent: Mapping[str, str], keys: Sequence[str], count: int) -> Any:
        """Returns the query for the places of the first `count` rows, which merges the parts of the list."""
        parts = [part.values_list(*keys) for part in self._parts(rows, sent)]
        return merged(parts, [f"-{key}" for key in keys], count)

    def _walk(self, request: HttpRequest) -> tuple[Any, Sequence[str], bool, Mapping[str, str]]:
        """Returns the rows of the index that fits the active filters, the columns of its order, whether other filters
        or the search must test each row, and the values of the active filters.
        """
        term = self.query.strip()
        if self._admin.ids_named(term):
            # The primary key finds and orders these few rows, whatever filters are active.
            return self.root_queryset, self._admin.newest_first, False, {}
        active = {name: spec for spec in self.filter_specs if (name := _active(spec))}
        sent = {name: _sent(spec) for name, spec in active.items()}
        scope: Scope = self._admin.scope_of(sent)
        rows: Any = self.root_queryset
        for name in scope.filters:
            rows = active[name].queryset(request, rows)
        is_text = bool(term) and self._admin.find_exactly(rows, term) is None
        return rows, scope.keys, is_text or active.keys() > set(scope.filters), sent


def _active(spec: Any) -> str:
    """Returns the active filter's name, or "". A filter by dates counts as inactive: every index serves it."""
    if not spec.used_parameters or isinstance(spec, DatesFilter):
        return ""
    if isinstance(spec, RelatedFilter):
        return spec.name
    return str(spec.parameter_name or "") if isinstance(spec, SimpleListFilter) else spec.field_path


def _sent(spec: Any) -> str:
    value = next(iter(spec.used_parameters.values()))
    return str(value[-1] if isinstance(value, list) else value)


def _format(place: Place) -> str:
    return ",".join(
        value.isoformat() if isinstance(value, datetime) else str(value) for value in place
    )


def _parse(sent: str, keys: Sequence[str]) -> Place | None:
    """Returns the place in the list that the text of `?after=` names, or None if the text names none."""
    parts = sent.split(",")
    if len(parts) != len(keys):
        return None
    try:
        return tuple(
            UUID(part) if key == "id" else datetime.fromisoformat(part).astimezone(UTC)
            for part, key in zip(parts, keys, strict=True)
        )
    except (ValueError, OverflowError):
        return None
