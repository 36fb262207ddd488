"""The filters of admin's lists."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin.filters import ListFilter, SimpleListFilter
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from pipedai.admin.values import page_of, spoken
from pipedai.ids import first_id_at

AFTER = "after"


class _SentFilter(ListFilter):
    names: tuple[str, ...]

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.names:
            if sent := params.pop(name, [""])[-1]:
                self.used_parameters[name] = sent

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
            "without": changelist.get_query_string(remove=[*self.names, AFTER]),
            **self.told(changelist),
        }

    def told(self, changelist: Any) -> dict[str, Any]:
        raise NotImplementedError


class RelatedFilter(_SentFilter):
    """Keeps the rows that refer to one other row. Links set it, because a menu of all rows would be endless."""

    template = "staff/related_filter.html"
    name: str
    # The model of the rows to which the column refers. The filter shows a link to such a row's page.
    other: type[Model] | None

    @property
    def row_id(self) -> UUID | None:
        try:
            return UUID(str(self.used_parameters[self.name]))
        except (KeyError, ValueError):
            return None

    def told(self, changelist: Any) -> dict[str, Any]:
        return {"page": page_of(self.other, self.row_id) if self.other and self.row_id else ""}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.used_parameters:
            return queryset
        if self.row_id is None:
            return queryset.none()
        return queryset.filter(**{f"{self.name}_id": self.row_id})


class DatesFilter(_SentFilter):
    """Keeps the rows of a range of days in UTC, by the column that orders the index. If that is the id, the time in the
    id is compared.
    """

    template = "staff/dates_filter.html"
    title = "date"
    names = ("from", "to")

    def told(self, changelist: Any) -> dict[str, Any]:
        today = datetime.now(UTC).date()
        spans = (("Today", 0, 0), ("Yesterday", 1, 1), ("Last 7 days", 6, 0))
        return {
            "spans": [
                (label, changelist.get_query_string(_days(today, first, last), remove=[AFTER]))
                for label, first, last in spans
            ]
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    def within(self, column: str, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the rows of the chosen days by this column, or no rows if a day does not exist in the calendar."""
        as_value = first_id_at if column == "id" else lambda moment: moment
        try:
            if first := self.used_parameters.get("from"):
                rows = rows.filter(**{f"{column}__gte": as_value(_start_of(str(first)))})
            if last := self.used_parameters.get("to"):
                end = _start_of(str(last)) + timedelta(days=1)
                rows = rows.filter(**{f"{column}__lt": as_value(end)})
        except (ValueError, OverflowError):
            return rows.none()
        return rows


def _days(today: date, first: int, last: int) -> dict[str, str]:
    return {
        "from": (today - timedelta(days=first)).isoformat(),
        "to": (today - timedelta(days=last)).isoformat(),
    }


def _start_of(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time.min, UTC)


class OneOf(SimpleListFilter):
    """Keeps the rows whose column holds a chosen word. The words are listed in code and not read from the table."""

    words: Iterable[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, spoken(word)) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value()
        return queryset.filter(**{str(self.parameter_name): word}) if word else queryset


def one_of(column: str, words: Iterable[str]) -> type[OneOf]:
    attributes = {"parameter_name": column, "title": spoken(column), "words": words}
    return type(f"{column.title()}Filter", (OneOf,), attributes)


class InState(OneOf):
    """Keeps the rows in a state that no column holds as a word."""

    title = parameter_name = "state"
    conditions: Mapping[str, Q]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        word = self.value()
        if not word:
            return queryset
        return queryset.filter(self.conditions[word]) if word in self.words else queryset.none()


def in_state(**conditions: Q) -> type[InState]:
    """Returns a filter `?state=` with a condition for each of its words."""
    return type("StateFilter", (InState,), {"conditions": conditions, "words": tuple(conditions)})


def related(name: str, other: type[Model] | None = None) -> type[RelatedFilter]:
    """Returns a filter for the column `<name>_id`, which holds ids of `other`."""
    return type(
        f"{name.title()}Filter",
        (RelatedFilter,),
        {"name": name, "names": (name,), "title": name, "other": other},
    )
