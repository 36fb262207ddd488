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


def add_to_every_page(make: Callable[[Model], Panel]) -> None:
    """Adds the panel that `make(row)` returns to the end of each row's page, for rows of all models."""
    _makers.append(make)


def panels_of_others(row: Model) -> list[Panel]:
    """Returns the panels that other apps add to the page of this row."""
    return [make(row) for make in _makers]
