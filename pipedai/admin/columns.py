"""Shows columns of rows by their names, as HTML. A name such as `trigger__timezone` is a column of a joined row.

All columns are shown, except those of `never_read`, which no page loads. A new column needs no declaration. All texts
of customers are escaped.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib.admin import display
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import FieldDoesNotExist
from django.db.models import BinaryField, JSONField, Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator, capfirst

from pipedai.admin.site import page_of, site
from pipedai.api.outside_urls import without_query

NOTHING = "–"
# A short id is this many characters of the end of an id. The end of a UUIDv7 is random, while its beginning is the time
# at which it was made, which rows of the same minute share.
_SHORT_ID = 8
# A list shows at most this many characters of a text, and a page shows a longer text in a block of its own.
_LINE = 100
# A link shows at most this many characters of a name.
_NAME = 40
_LINE_BREAK = SafeString("<br>")


def link(href: str, text: Any) -> SafeString:
    return format_html('<a href="{}">{}</a>', href, text)


def link_to(model: type[Model], row_id: Any, text: Any = None) -> SafeString | str:
    """Returns a link to a row's page, with `text` or else with the row's short id."""
    if row_id is None:
        return NOTHING
    return link(page_of(model, row_id), _cut(str(text), _NAME) if text else short_id(row_id))


def short_id(row_id: UUID | str) -> SafeString:
    return format_html('<code title="{}">…{}</code>', row_id, str(row_id)[-_SHORT_ID:])


def moment(at: datetime | None, zone: tzinfo = UTC) -> SafeString | str:
    """Returns a time in UTC and, in a line below, in `zone` if this is another time zone."""
    if at is None:
        return NOTHING
    zones = [UTC] if str(zone) == "UTC" else [UTC, zone]
    times = ((f"{at.astimezone(each):%Y-%m-%d %H:%M:%S %Z}",) for each in zones)
    shown = format_html_join(_LINE_BREAK, "{}", times)
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), shown)


def spoken(word: str) -> str:
    return word.replace("_", " ")


def money(usd: Decimal | None) -> str:
    if usd is None:
        return NOTHING
    return f"${usd:,.2f}" if usd >= 1 else f"${usd.normalize():f}"


def block(text: str) -> SafeString:
    return format_html("<pre>{}</pre>", text)


def excerpt(text: str | None) -> str:
    """Returns the first line of a text, cut to what a list has room for."""
    return _cut((text or "").strip().partition("\n")[0]) or NOTHING


def url(address: str) -> str:
    """Returns a customer's URL without its query and fragment, because these may contain secret keys."""
    plain = without_query(address)
    return plain if plain == address else f"{plain}{address[len(plain)]}…"


def shown(field: Any, value: Any, *, in_list: bool) -> Any:
    """Returns the value of a column in the form that fits the column's type."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Decimal):
        return f"{value.normalize():,f}"
    if isinstance(value, UUID):
        return short_id(value) if in_list else format_html("<code>{}</code>", value)
    if isinstance(field, JSONField):
        text = json.dumps(value, indent=None if in_list else 2, ensure_ascii=False)
    elif isinstance(value, list):
        text = ", ".join(map(str, value)) or NOTHING
    else:
        text = url(str(value)) if field.name.endswith("url") else str(value)
    if in_list:
        return excerpt(text)
    return block(text) if "\n" in text or len(text) > _LINE else text


def _cut(text: str, length: int = _LINE) -> str:
    return Truncator(text).chars(length)


# A column: its name in the model, or its header, the function that makes its value from a row, and the columns read.
Column = str | tuple[str, Callable[[Any], Any], Sequence[str]]


@dataclass(frozen=True)
class Panel:
    """A part of a row's page above its columns: a sentence, facts, or a table. With `zone` staff may ask for another
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
    fields = model._meta.concrete_fields
    sealed = {each.name for each in fields if isinstance(each, BinaryField)}
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
    return admin and field.related_model, name


def reading(rows: QuerySet[Any], paths: Iterable[str]) -> QuerySet[Any]:
    """Returns the query with the joins and only the columns that the paths need, so that no secret is loaded."""
    reads = {path for path in paths if path not in never_read(rows.model)}
    reads |= {name for path in reads if (name := _other(rows.model, path)[1])}
    joins = {path.rpartition("__")[0] for path in reads if "__" in path}
    return (rows.select_related(*sorted(joins)) if joins else rows).only(*sorted(reads))


def newest(
    title: str, model: Any, columns: Sequence[Column], by: str, order: Sequence[str], **added: Any
) -> Callable[[Any, HttpRequest], Panel]:
    """Returns the panel with at most 50 rows of another model that refer to the page's row by the column `by`."""

    def panel(row: Any, _: HttpRequest) -> Panel:
        cells = [_cell(model, each) for each in columns]
        found = model._default_manager.filter(**{by: row.pk}).annotate(**added).order_by(*order)
        found = reading(found, (path for *_, paths in cells for path in paths))[:50]
        table = [[show(each) for _, show, _ in cells] for each in found]
        headers = [name for name, *_ in cells]
        return Panel(title, "" if table else "None.", headers=headers, rows=table)

    return panel


def _cell(model: Any, given: Column) -> tuple[str, Callable[[Any], Any], Sequence[str]]:
    if not isinstance(given, str):
        return given
    return capfirst(spoken(given.rpartition("__")[2])), column(model, given, in_list=True), (given,)


ATTEMPT = ("n", "at", "status_code", "duration_ms", "error", "response_body")


def attempts(model: Any, by: str) -> Callable[[Any, HttpRequest], Panel]:
    """Returns the panel with the attempts to send a message. `model` is derived from `SendAttempt`."""
    return newest("Attempts", model, ATTEMPT, by, ("n",))
