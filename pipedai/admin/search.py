"""The search of admin's lists: by the beginning of an id or a whole address through an index, or by parts of texts."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.text import get_text_list
from unfold.admin import ModelAdmin

from pipedai.ids import ids_beginning_with

# The end of an id, as lists show it: `…c6689400`. No index has it, so it is looked for like a part of a text.
_END_OF_ID = re.compile("…?([0-9A-Fa-f]{8,12})")

_also_found_by: dict[type[Model], list[tuple[str, Callable[[str], Q]]]] = {}


def also_find_by(model: type[Model], words: str, condition: Callable[[str], Q]) -> None:
    """Makes the search of a model's list also find rows by `condition(term)`, for an app that the model's app must not
    import. `words` tells people what is compared.
    """
    _also_found_by.setdefault(model, []).append((words, condition))


class SearchedModelAdmin(ModelAdmin):
    """Gives a list its search box."""

    # The text columns that the search reads, and what people call them. The search also finds rows by their ids, which
    # need not be named here.
    searched_text: ClassVar[Mapping[str, str]] = {}
    # The path to the user by whose whole e-mail address the search finds a row, and what people call the address.
    searched_address: ClassVar[tuple[str, str] | None] = None

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        found = ["First or last 8 characters of an id", *(self.searched_address or ())[1:]]
        others = (words for words, _ in self._found_by_others())
        if parts := [*self.searched_text.values(), *others]:
            found.append(f"part of {get_text_list(parts, 'or')}")
        return ", ".join(found)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("id", *self.searched_text)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        exact = self.find_exactly(queryset, term)
        if exact is not None:
            return exact, False
        found = Q()
        if end := _END_OF_ID.fullmatch(term):
            found |= Q(id__endswith=end[1].lower())
        for column in self.searched_text:
            found |= Q(**{f"{column}__icontains": term})
        for _, condition in self._found_by_others():
            found |= condition(term)
        return (queryset.filter(found) if found else queryset.none()), False

    def _found_by_others(self) -> list[tuple[str, Callable[[str], Q]]]:
        return _also_found_by.get(self.model, [])

    def ids_named(self, term: str) -> tuple[UUID, UUID] | None:
        """Returns the least and the greatest id that the term can mean, or None. A term such as 20261129, which may be
        the end of an id or a part of a name, means ids only if there are some that begin with it.
        """
        ids = ids_beginning_with(term)
        if ids is None or ids[0] == ids[1]:
            return ids
        return ids if self.find_by_ids(self.model._default_manager.all(), *ids).exists() else None

    def find_exactly(self, rows: QuerySet[Any], term: str) -> QuerySet[Any] | None:
        """Returns the rows whose ids begin so, or those of the user with this address. None if the term is neither."""
        if ids := self.ids_named(term):
            return self.find_by_ids(rows, *ids)
        if self.searched_address is None or "@" not in term:
            return None
        users: Any = get_user_model()
        try:
            user = users.objects.get_by_natural_key(term)
        except users.DoesNotExist:
            return None
        return rows.filter(**{self.searched_address[0]: user.pk})

    def find_by_ids(self, rows: QuerySet[Any], first: UUID, last: UUID) -> QuerySet[Any]:
        return rows.filter(id__gte=first, id__lte=last)
