"""The parts of a row's page, and how other apps add theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import Model

from pipedai.admin.values import NOTHING


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    template: ClassVar[str] = "staff/facts.html"
    title: str
    rows: Sequence[tuple[str, Any]]

    @property
    def known(self) -> list[tuple[str, Any]]:
        """The rows that have a value."""
        return [(name, value) for name, value in self.rows if value is not NOTHING]


@dataclass(frozen=True)
class Table:
    """Rows under headers. `more` is the URL of the whole list, where these are only the newest."""

    template: ClassVar[str] = "staff/table.html"
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    nothing: str = "None."
    more: str = ""


@dataclass(frozen=True)
class Links:
    """Where else to look."""

    template: ClassVar[str] = "staff/links.html"
    title: str
    links: Sequence[tuple[str, str]]


Panel = Facts | Table | Links


_makers: list[Callable[[Model], Panel]] = []


def add_to_every_page(make: Callable[[Model], Panel]) -> None:
    """`make(row)` is shown at the end of the page of each row, of whatever model."""
    _makers.append(make)


def panels_of_others(row: Model) -> list[Panel]:
    """What other apps show on the page of this row."""
    return [make(row) for make in _makers]
