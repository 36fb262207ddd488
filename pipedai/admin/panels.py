"""Defines the panels of a row's page, and lets other apps add theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import Model

from pipedai.admin.values import NOTHING


@dataclass(frozen=True)
class Facts:
    """A panel of names with their values."""

    template: ClassVar[str] = "staff/facts.html"
    title: str
    rows: Sequence[tuple[str, Any]]

    @property
    def known(self) -> list[tuple[str, Any]]:
        """Returns the pairs of name and value, without those whose value is missing."""
        return [(name, value) for name, value in self.rows if value is not NOTHING]


@dataclass(frozen=True)
class Answer(Facts):
    """A panel that answers a question in a sentence, with the facts behind it.

    If `zone` is set, the panel has a field for another time in this zone. Staff enter a time to get the answer for it.
    `asked_at` is the time that the field shows.
    """

    template: ClassVar[str] = "staff/answer.html"
    sentence: str
    zone: str = ""
    asked_at: str = ""


@dataclass(frozen=True)
class Table:
    """A panel with a table. If it shows only the newest rows, `more` is the URL of the whole list."""

    template: ClassVar[str] = "staff/table.html"
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    nothing: str = "None."
    more: str = ""


@dataclass(frozen=True)
class Links:
    """A panel of links to related pages."""

    template: ClassVar[str] = "staff/links.html"
    title: str
    links: Sequence[tuple[str, str]]


Panel = Facts | Table | Links


_makers: list[Callable[[Model], Panel]] = []
_makers_of: dict[type[Model], list[Callable[[Any], Panel]]] = {}


def add_to_every_page(make: Callable[[Model], Panel]) -> None:
    """Adds the panel that `make(row)` returns to the end of each row's page, for rows of all models."""
    _makers.append(make)


def add_to_page_of(model: type[Model], make: Callable[[Any], Panel]) -> None:
    """Adds the panel that `make(row)` returns to the pages of this model's rows, below the row's own facts.

    An app uses it to show its rows on the pages of an app that must not import it.
    """
    _makers_of.setdefault(model, []).append(make)


def panels_for(row: Model) -> list[Panel]:
    """Returns the panels that other apps have added to the pages of this row's model."""
    return [make(row) for make in _makers_of.get(type(row), ())]


def panels_of_others(row: Model) -> list[Panel]:
    """Returns the panels that other apps have added to the pages of all models."""
    return [make(row) for make in _makers]
