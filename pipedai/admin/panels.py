"""The panels of a row's page. Apps add theirs with `add_to_page_of`.

A panel is called with a row and the request, and returns what templates draw.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models import Model, Q
from django.http import HttpRequest

from pipedai.admin.fields import Declared, Fields, column, fields_of, reading
from pipedai.admin.site import site
from pipedai.admin.values import NOTHING, list_of, long_text, text, took


@dataclass(frozen=True)
class Facts:
    template: ClassVar[str] = "staff/facts.html"
    title: str
    rows: Sequence[tuple[str, Any]]

    @property
    def known(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.rows if value is not NOTHING]


@dataclass(frozen=True)
class Answer(Facts):
    """A sentence that answers a question. With `zone` staff may ask for another time, which `asked_at` shows."""

    template: ClassVar[str] = "staff/answer.html"
    sentence: str
    zone: str = ""
    asked_at: str = ""


@dataclass(frozen=True)
class Table:
    """A table. If it shows only the newest rows, `more` is the URL of the whole list."""

    template: ClassVar[str] = "staff/table.html"
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    nothing: str = "None."
    more: str = ""


@dataclass(frozen=True)
class Links:
    template: ClassVar[str] = "staff/links.html"
    title: str
    links: Sequence[tuple[str, str]]


Drawn = Facts | Table | Links
Panel = Callable[[Any, HttpRequest], Sequence[Drawn]]


@dataclass(frozen=True)
class Related:
    """A panel with the newest rows of another model that refer to the page's row by the column `by`, in one query. A
    capitalised name among the columns is that of a field of the model's admin.
    """

    title: str
    model: Any
    columns: Declared
    by: str
    where: Q | None = None
    # The columns that order the rows, as for `order_by`; empty for the order of the model's list.
    order: Sequence[str] = ()
    shown: int = 50
    # The sentence that stands for an empty table. If this is empty as well, the panel is left out.
    nothing: str = "None."
    # Returns the URL of a list to link to, if it is not the list of the model.
    more: Callable[[Any], str] | None = None

    def __call__(self, row: Model, request: HttpRequest) -> Sequence[Drawn]:
        admin: Any = site._registry.get(self.model)
        fields = fields_of(self.model, self.columns, admin and admin.named_facts)
        key = {self.by: row.pk}
        order = self.order or [f"-{each}" for each in admin.scope_of(key).keys]
        rows = self.model._default_manager.filter(self.where or Q(), **key).order_by(*order)
        has_list = admin and self.by in admin.related_filters
        more = self.more(row) if self.more else list_of(self.model, **key) if has_list else ""
        found = list(reading(rows, fields.values())[: self.shown])
        if not (found or self.nothing):
            return []
        return [table_of(self.title, fields, found, nothing=self.nothing, more=more)]


def table_of(title: str, fields: Fields, rows: Iterable[Any], **told: str) -> Table:
    cells = [[each.show(row) for each in fields.values()] for row in rows]
    return Table(title, list(fields), cells, **told)


ATTEMPT: Declared = (
    ("Attempt", "n"), ("When", "at"), ("Answer", column("status_code", text)), ("Took", column("duration_ms", took)),
    "error", ("Response", column("response_body", long_text)),
)  # fmt: skip


def attempts(model: Any, by: str, **told: Any) -> Related:
    """Returns the panel with the attempts to send a message, rows of a model that is derived from `SendAttempt`."""
    known = {"title": "Attempts", "columns": ATTEMPT, "nothing": "Not sent yet.", "order": ("n",)}
    return Related(model=model, by=by, **{**known, **told})


_added: dict[Any, list[Panel]] = {}


def add_to_page_of(model: Any, *panels: Panel) -> None:
    """Adds panels from apps that the model's app must not import; for `Model`, to the pages of all rows."""
    _added.setdefault(model, []).extend(panels)


def added_to(model: Any) -> Sequence[Panel]:
    return _added.get(model, ())


def drawn(row: Model, request: HttpRequest, panels: Iterable[Panel]) -> list[Drawn]:
    return [each for panel in panels for each in panel(row, request)]
