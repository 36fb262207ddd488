"""Keeps the lists of the staff pages fast in a ledger of millions of rows.

A list reads only the newest rows that an index finds for its filters. Staff see older rows by choosing their days.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin.filters import ListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import DateTimeField, Q, QuerySet
from django.http import HttpRequest

from pipedai.admin.columns import short_id, spoken
from pipedai.api.pagination import not_before
from pipedai.ids import first_id_at


class BoundedList(ChangeList):
    """A list of at most `looks_through` rows, on which Django's filters, search, sorting, counts and pages work."""

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

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        admin: Any = self.model_admin
        rows = admin.list_rows()
        exact = admin.find_exactly(rows, self.query.strip())
        self.is_cut = False
        self.root_queryset = self._newest(request, rows) if exact is None else exact
        return super().get_queryset(request, exclude_parameters)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # The rows are read here, while the replica is asked, and not later by the template.
        self.result_list = list(self.result_list)

    def _newest(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the newest rows of the index that fits the most of the active filters, in its order."""
        admin: Any = self.model_admin
        specs = (each for each in self.get_filters(request)[0] if each.used_parameters)
        active: dict[str, Any] = {_name(each): each for each in specs}
        names, key = served(admin, active)
        for name in names:
            rows = active[name].queryset(request, rows)
        if days := active.get(DatesFilter.title):
            rows = days.within(key, rows)
        keys = (key,) if key == "id" else (key, "id")
        rows = rows.order_by(*(f"-{each}" for each in keys))
        limit: int = admin.looks_through
        last = rows.values_list(*keys)[limit - 1 : limit].first()
        self.is_cut = last is not None
        return rows.filter(not_before(keys, last)) if last else rows


def _name(spec: Any) -> str:
    return str(getattr(spec, "parameter_name", "") or getattr(spec, "field_path", "") or spec.title)


def served(admin: Any, active: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Returns the filters that an index of the table serves together, and the column in whose order it has their rows.
    Each table of tenants has an index of `environment` and `id`.
    """
    known = {**admin.indexes, (): admin.newest_by}
    for index in admin.opts.indexes:
        fields = [*index.fields, "id"]
        names = tuple(fields[: next(n for n, each in enumerate(fields) if each not in active)])
        key = fields[len(names)]
        is_whole = index.condition in (None, *(Q(**{f"{name}__isnull": False}) for name in names))
        if is_whole and (key == "id" or isinstance(admin.opts.get_field(key), DateTimeField)):
            known.setdefault(names, key)
    for field in admin.opts.concrete_fields:
        if field.is_relation and (field.db_index or field.name == "environment"):
            known.setdefault((field.name,), "id")
    return max(
        ((names, key) for names, key in known.items() if {*names} <= {*active}),
        key=lambda each: len(each[0]),
    )


class RelatedFilter(SimpleListFilter):
    """Keeps the rows that refer to one other row. Links set it, because a menu of all rows would be endless."""

    # The models to whose rows the column refers. Their pages lead to the list.
    others: tuple[Any, ...]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(sent, short_id(sent))] if (sent := self.value()) else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            row_id = UUID(self.value()) if self.value() else None
        except ValueError:
            return queryset.none()
        return queryset.filter(**{f"{self.parameter_name}_id": row_id}) if row_id else queryset


def related(name: str, *others: Any) -> type[RelatedFilter]:
    """Returns a filter for the column `<name>_id`, which has ids of rows of these models."""
    attributes = {"parameter_name": name, "title": spoken(name), "others": others}
    return type(f"{name.title()}Filter", (RelatedFilter,), attributes)


class DatesFilter(ListFilter):
    """Keeps the rows of a range of days in UTC, by the column that orders the index. If that is the id, the time in the
    id is compared.
    """

    template = "staff/dates_filter.html"
    title = "date"
    names = ("from", "to")

    def __init__(self, request: HttpRequest, params: dict[str, Any], *others: Any) -> None:
        super().__init__(request, params, *others)
        sent = {name: params.pop(name, [""])[-1] for name in self.names}
        self.used_parameters = {name: day for name, day in sent.items() if day}

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.names)

    def choices(self, changelist: Any) -> Iterator[Mapping[str, Any]]:
        kept = changelist.filter_params.items()
        yield {
            "sent": [(name, self.used_parameters.get(name, "")) for name in self.names],
            "kept": [
                (name, each) for name, sent in kept if name not in self.names for each in sent
            ],
            "limit": changelist.model_admin.looks_through if changelist.is_cut else 0,
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def within(self, column: str, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the rows of the chosen days by this column, or no rows if a day does not exist in the calendar."""
        as_value: Any = first_id_at if column == "id" else lambda moment: moment
        days = {"from": ("gte", timedelta(0)), "to": ("lt", timedelta(days=1))}
        try:
            for name, day in self.used_parameters.items():
                comparison, further = days[name]
                at = datetime.combine(date.fromisoformat(str(day)), time.min, UTC) + further
                rows = rows.filter(**{f"{column}__{comparison}": as_value(at)})
        except (ValueError, OverflowError):
            return rows.none()
        return rows


class InState(SimpleListFilter):
    """Keeps the rows that meet the condition of a word, which need not be one that a column holds."""

    conditions: Mapping[str, Q]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, spoken(word)) for word in self.conditions]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value()
        return queryset.filter(self.conditions.get(word, Q(pk__in=()))) if word else queryset


def in_state(name: str = "state", /, **conditions: Q) -> type[InState]:
    """Returns a filter `?state=`, or by another name, with a condition for each of its words."""
    attributes = {"parameter_name": name, "title": spoken(name), "conditions": conditions}
    return type("StateFilter", (InState,), attributes)


def one_of(column: str, words: Iterable[str]) -> type[InState]:
    return in_state(column, **{word: Q(**{column: word}) for word in words})
