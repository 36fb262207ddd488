"""Shows columns of rows by their names. A name such as `trigger__timezone` is a column of a joined row.

Every column is shown but those of `never_read`, which no page loads. A new column needs no declaration.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import display
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst

from pipedai.admin.site import site
from pipedai.admin.values import link_to, shown, spoken

# A column by its name, or a header, what stands below it for a row, and the names of the columns that it reads.
Column = str | tuple[str, Callable[[Any], Any], Sequence[str]]


@dataclass(frozen=True)
class Panel:
    """What a row's page tells above its columns: a sentence, facts, or a table. With `zone` staff may ask for another
    time, which `asked_at` shows.
    """

    title: str
    sentence: str = ""
    facts: Sequence[tuple[str, Any]] = ()
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    links: Sequence[tuple[str, str]] = ()
    zone: str = ""
    asked_at: str = ""


def never_read(model: Any) -> set[str]:
    """Returns the columns that no page reads: all bytes (sealed values, digests), and what the admin hides."""
    sealed = {
        each.name for each in model._meta.concrete_fields if isinstance(each, models.BinaryField)
    }
    return sealed | {*getattr(site._registry.get(model), "hidden", ())}


def is_column(model: Any, path: str) -> bool:
    try:
        return bool(get_fields_from_path(model, path))
    except FieldDoesNotExist:
        return False


def value_of(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name, None)
    return row


def column(model: Any, path: str, *, in_list: bool) -> Any:
    """Returns a function that shows the column of a row, for Django's admin. A key of another row becomes a link."""
    field: Any = get_fields_from_path(model, path)[-1]
    other, name = _other(model, path)
    key = f"{path}_id" if field.is_relation else path

    @display(description=capfirst(str(field.verbose_name)), ordering=path)
    def show(row: Any) -> Any:
        if other is not None:
            return link_to(other, value_of(row, key), value_of(row, name) if name else None)
        return shown(field, value_of(row, key), in_list=in_list)

    show.__name__ = path
    return show


def _other(model: Any, path: str) -> tuple[Any, str]:
    """Returns the model with pages to which the column refers, or None, and the path to the name of its row."""
    field: Any = get_fields_from_path(model, path)[-1]
    if not field.is_relation:
        return getattr(site._registry.get(model), "refers", {}).get(path), ""
    admin: Any = site._registry.get(field.related_model)
    name = f"{path}__{admin.named_by}" if admin and admin.named_by else ""
    return (field.related_model if admin else None), name


def reading(rows: QuerySet[Any], paths: Iterable[str]) -> QuerySet[Any]:
    """Returns the query with the joins and only the columns that these need, so that no secret is loaded."""
    reads = {path for path in paths if path not in never_read(rows.model)}
    reads |= {name for path in reads if (name := _other(rows.model, path)[1])}
    joins = {path.rpartition("__")[0] for path in reads if "__" in path}
    return (rows.select_related(*sorted(joins)) if joins else rows).only(*sorted(reads))


def newest(
    title: str,
    model: Any,
    columns: Sequence[Column],
    *,
    by: str,
    order: Sequence[str],
    **annotations: Any,
) -> Callable[[Any, HttpRequest], Panel]:
    """Returns the panel with at most 50 rows of another model that refer to the page's row by the column `by`."""

    def panel(row: Any, _: HttpRequest) -> Panel:
        cells = [_cell(model, each) for each in columns]
        found = (
            model._default_manager.filter(**{by: row.pk}).annotate(**annotations).order_by(*order)
        )
        found = reading(found, (path for *_, paths in cells for path in paths))[:50]
        table = [[show(each) for _, show, _ in cells] for each in found]
        return Panel(
            title, "" if table else "None.", headers=[name for name, *_ in cells], rows=table
        )

    return panel


def _cell(model: Any, given: Column) -> tuple[str, Callable[[Any], Any], Sequence[str]]:
    if not isinstance(given, str):
        return given
    return capfirst(spoken(given.rpartition("__")[2])), column(model, given, in_list=True), (given,)


ATTEMPT = ("n", "at", "status_code", "duration_ms", "error", "response_body")


def attempts(model: Any, by: str) -> Callable[[Any, HttpRequest], Panel]:
    """Returns the panel with the attempts to send a message, rows of a model that is derived from `SendAttempt`."""
    return newest("Attempts", model, ATTEMPT, by=by, order=("n",))
