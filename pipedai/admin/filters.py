"""The filters of admin's lists."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from django.contrib.admin.filters import ListFilter, SimpleListFilter
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from pipedai.admin.values import page_of, spoken

AFTER = "after"


class RelatedFilter(ListFilter):
    """Keeps the rows that refer to one other row, by its id.

    Links set this filter, because a menu of all triggers, for example, would be endless.
    """

    template = "staff/related_filter.html"
    name: str
    # The model of the rows to which the column refers. The filter shows a link to such a row's page.
    other: type[Model] | None

    def __init__(
        self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any
    ) -> None:
        self.title = self.name
        super().__init__(request, params, model, model_admin)
        if sent := params.pop(self.name, [""])[-1]:
            self.used_parameters[self.name] = sent

    @property
    def row_id(self) -> UUID | None:
        """Returns the id of the row to which the listed rows must refer, or None if the parameter is no id."""
        try:
            return UUID(str(self.used_parameters[self.name]))
        except (KeyError, ValueError):
            return None

    def has_output(self) -> bool:
        """Always true, so that Django shows this filter beside every list that has it."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Returns the filter's name in the URL."""
        return [self.name]

    def choices(self, changelist: Any) -> Iterator[Mapping[str, Any]]:
        """Yields the values that the filter's template needs."""
        kept = changelist.filter_params.items()
        yield {
            "name": self.name,
            "sent": self.used_parameters.get(self.name, ""),
            "kept": [(name, each) for name, sent in kept if name != self.name for each in sent],
            "without": changelist.get_query_string(remove=[self.name, AFTER]),
            "page": page_of(self.other, self.row_id) if self.other and self.row_id else "",
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the rows that refer to the given id, or no rows if the parameter is no id."""
        if not self.used_parameters:
            return queryset
        if self.row_id is None:
            return queryset.none()
        return queryset.filter(**{f"{self.name}_id": self.row_id})


class OneOf(SimpleListFilter):
    """Keeps the rows whose column holds a chosen word. The words are listed in code and not read from the table."""

    words: Iterable[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Returns the words with the text that the menu shows for each."""
        return [(word, spoken(word)) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Returns the rows whose column holds the chosen word."""
        word = self.value()
        return queryset.filter(**{str(self.parameter_name): word}) if word else queryset


def one_of(column: str, words: Iterable[str]) -> type[OneOf]:
    """Returns a filter for a column that holds one of these words."""
    attributes = {"parameter_name": column, "title": spoken(column), "words": words}
    return type(f"{column.title()}Filter", (OneOf,), attributes)


def related(name: str, other: type[Model] | None = None) -> type[RelatedFilter]:
    """Returns a filter for the column `<name>_id`, which holds ids of `other`."""
    return type(f"{name.title()}Filter", (RelatedFilter,), {"name": name, "other": other})
