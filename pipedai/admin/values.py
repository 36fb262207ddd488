"""Formats the values of rows for the staff pages: times, links, data of any shape.

All that customers wrote is escaped.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import models
from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from pipedai.api.outside_urls import without_query

NOTHING = "–"
# A short id is this many characters of the end of an id. The end of a UUIDv7 is random, while its beginning is the time
# at which it was made, which rows of the same minute share.
_SHORT_ID = 8
# A list shows at most this many characters of a text, and a page shows a longer text in a block of its own.
_LINE = 100
_LINE_BREAK = SafeString("<br>")


def page_of(model: type[Model], row_id: Any) -> str:
    opts = model._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row_id])


def list_of(model: type[Model], **filters: Any) -> str:
    opts = model._meta
    page = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return f"{page}?{urlencode(filters)}" if filters else page


def link(href: str, text: Any) -> SafeString:
    return format_html('<a href="{}">{}</a>', href, text)


def link_to(model: type[Model], row_id: Any, text: Any = None) -> SafeString | str:
    """Returns a link to a row's page, with `text` or else with the row's short id."""
    if row_id is None:
        return NOTHING
    return link(page_of(model, row_id), short_id(row_id) if text is None else _cut(str(text)))


def short_id(row_id: UUID | str) -> SafeString:
    return format_html('<code title="{}">…{}</code>', row_id, str(row_id)[-_SHORT_ID:])


def moment(at: datetime | None, zone: tzinfo = UTC) -> SafeString | str:
    """Returns a time in UTC and, in a line below, in `zone` if that is another one."""
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
    if isinstance(field, models.JSONField):
        text = json.dumps(value, indent=None if in_list else 2, ensure_ascii=False)
    elif isinstance(value, list):
        text = ", ".join(map(str, value)) or NOTHING
    else:
        text = url(str(value)) if field.name.endswith("url") else str(value)
    if in_list:
        return excerpt(text)
    return block(text) if "\n" in text or len(text) > _LINE else text


def changes(metadata: Mapping[str, Any]) -> SafeString | str:
    """Returns a line for each changed field of an audit row. `[old, new]` is shown with an arrow."""
    lines = ((name, _change(value)) for name, value in metadata.items())
    return format_html_join("", "<div><b>{}</b> {}</div>", lines) or NOTHING


def _change(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return " → ".join(map(_change, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return Truncator(text).chars(_LINE)
