"""Lists that are as fast at two million rows: keyset pages, no counts, and a bound on what a filter looks through."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib.admin.filters import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from unfold.views import ChangeList

from pipedai.admin.filters import AFTER, RelatedFilter
from pipedai.keyset import before, not_before

# Through so many rows a page looks for those that a filter without an index lets pass.
LOOKS_THROUGH = 2_000

Place = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """Filters that one index knows, and the columns by which it then orders rows."""

    filters: Sequence[str]
    keys: Sequence[str]


class KeysetChangeList(ChangeList):
    """A page of `list_per_page` rows, newest first, after the place in `?after=`.

    Filters that an index knows (`StaffModelAdmin.scope_of`) narrow the walk. All others pass over what lies within
    it, through LOOKS_THROUGH rows at most: the page then says so, and the next one looks on from there.
    """

    def get_filters_params(self, params: Any = None) -> Any:
        """The filters' parameters: the place is none of them."""
        found = super().get_filters_params(params)
        found.pop(AFTER, None)
        return found

    def get_filters(self, request: HttpRequest) -> Any:
        """The filters, and nothing else that narrows the list: Django takes any column of the model for one, so that
        what no page shows, such as a password's hash, could be guessed bit by bit. Raises IncorrectLookupParameters.
        """
        if any("\0" in value for sent in request.GET.lists() for value in sent[1]):
            raise IncorrectLookupParameters("PostgreSQL's text knows no NUL.")
        found = super().get_filters(request)
        if others := found[2]:
            raise IncorrectLookupParameters(f"No filters of this list: {', '.join(others)}")
        return found

    def get_results(self, request: HttpRequest) -> None:
        """Reads the page."""
        self._admin: Any = self.model_admin
        scoped, keys, is_loose = self._walk(request)
        place = _parse(request.GET.get(AFTER, ""), keys)
        rows = self.queryset.order_by(*(f"-{key}" for key in keys))
        if place is not None:
            rows, scoped = (each.filter(before(keys, place)) for each in (rows, scoped))
        end = self._end_of_look(scoped, keys) if is_loose else None
        if end is not None:
            rows = rows.filter(not_before(keys, end))
        found = list(rows[: self.list_per_page + 1])
        page = found[: self.list_per_page]
        more = len(found) > len(page)
        last = tuple(getattr(page[-1], key) for key in keys) if more else end
        self.result_list = page
        self.result_count = len(page)
        self.full_result_count = len(page)  # nobody counts
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = False
        self.multi_page = False
        self.is_first = place is None
        self.newest_url = self.get_query_string(remove=[AFTER])
        self.older_url = self.get_query_string({AFTER: _format(last)}) if last else ""
        self.looked_through = 0 if more or end is None else LOOKS_THROUGH

    def _walk(self, request: HttpRequest) -> tuple[Any, Sequence[str], bool]:
        """What an index finds, the columns that order it there, and whether anything else is filtered by."""
        active = {name: spec for spec in self.filter_specs if (name := _active(spec))}
        sent = {name: _sent(spec) for name, spec in active.items()}
        scope: Scope = self._admin.scope_of(sent)
        rows: Any = self.root_queryset
        for name in scope.filters:
            rows = active[name].queryset(request, rows)
        is_text = bool(self.query) and not _is_id(self.query)
        return rows, scope.keys, is_text or active.keys() > set(scope.filters)

    def _end_of_look(self, scoped: Any, keys: Sequence[str]) -> Place | None:
        """The place of the last row to look at; None if there are fewer."""
        places = scoped.order_by(*(f"-{key}" for key in keys)).values_list(*keys)
        return next(iter(places[LOOKS_THROUGH - 1 : LOOKS_THROUGH]), None)


def _active(spec: Any) -> str:
    """The name of a filter that narrows the list, else nothing."""
    if not spec.used_parameters:
        return ""
    if isinstance(spec, RelatedFilter):
        return spec.name
    return str(spec.parameter_name or "") if isinstance(spec, SimpleListFilter) else spec.field_path


def _sent(spec: Any) -> str:
    """The value that a filter was sent."""
    value = next(iter(spec.used_parameters.values()))
    return str(value[-1] if isinstance(value, list) else value)


def _is_id(word: str) -> bool:
    try:
        UUID(word)
    except ValueError:
        return False
    return True


def _format(place: Place) -> str:
    return ",".join(
        value.isoformat() if isinstance(value, datetime) else str(value) for value in place
    )


def _parse(sent: str, keys: Sequence[str]) -> Place | None:
    """The place, None for none and for what is no place of this list."""
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
