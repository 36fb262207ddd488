"""Formats values for the admin's pages: times, links, states, money, and data of any shape."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.urls import reverse
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from pipedai.api.outside_urls import without_query

NOTHING = mark_safe('<span class="staff-quiet">–</span>')
# A short id is this many characters of the end of an id. The end of a UUIDv7 is random, while its beginning is the time
# at which it was made, which rows of the same minute share.
_SHORT_ID = 8
_DEEPEST = 6
# A link shows at most this many characters of a name.
_LINK_TEXT = 40
# A list shows at most this many characters of a text.
_EXCERPT = 100


def page_of(model: type[Model], row_id: Any) -> str:
    opts = model._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row_id])


def list_of(model: type[Model], **filters: Any) -> str:
    opts = model._meta
    page = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return f"{page}?{query}" if query else page


def link(href: str, text: Any) -> SafeString:
    """Returns an HTML link. A tooltip shows the whole text if it is too long for a table's cell."""
    if isinstance(text, SafeString) or len(str(text)) <= _LINK_TEXT:
        return format_html('<a class="staff-link" href="{}">{}</a>', href, text)
    return format_html(
        '<a class="staff-link" href="{}" title="{}">{}…</a>', href, text, str(text)[:_LINK_TEXT]
    )


def link_to(model: type[Model], row_id: Any, text: Any = None) -> SafeString:
    """Returns a link with `text`, or else with the short id and a button that copies the whole id."""
    if row_id is None:
        return NOTHING
    if text is not None:
        return link(page_of(model, row_id), text)
    short = link(page_of(model, row_id), short_id(row_id))
    return format_html('<span class="staff-short">{}{}</span>', short, _copy_button(row_id))


def ident(row_id: UUID | str | None) -> SafeString:
    if row_id is None:
        return NOTHING
    return format_html('<span class="staff-id">{}</span>{}', row_id, _copy_button(row_id))


def short_id(row_id: UUID | str) -> SafeString:
    return format_html(
        '<span class="staff-id" title="{}">…{}</span>', row_id, str(row_id)[-_SHORT_ID:]
    )


def _copy_button(row_id: UUID | str) -> SafeString:
    """Returns a button that puts the whole id into the clipboard. Browsers allow this on https and localhost only."""
    return format_html(
        '<button type="button" class="staff-copy material-symbols-outlined" title="Copy the id" aria-label="Copy {0}"'
        ' data-id="{0}" x-data="{{copied: false}}" x-text="copied ? \'check\' : \'content_copy\'"'
        ' x-on:click="navigator.clipboard?.writeText($el.dataset.id).then(() => copied = true)">content_copy</button>',
        row_id,
    )


def moment(at: datetime | None) -> SafeString:
    if at is None:
        return NOTHING
    at = at.astimezone(UTC)
    return _time(at, at.isoformat(timespec="milliseconds"), at.strftime("%H:%M:%S"))


def local_moment(at: datetime | None, zone: tzinfo) -> SafeString:
    """Returns a time in this zone to the second, with the zone's abbreviation or offset at that time."""
    if at is None:
        return NOTHING
    local = at.astimezone(zone)
    return _time(local, str(zone), local.strftime("%H:%M:%S %Z"))


def _time(at: datetime, title: str, clock: str) -> SafeString:
    return format_html(
        '<time class="staff-time" datetime="{}" title="{}"><span>{}</span> <span>{}</span></time>',
        at.isoformat(),
        title,
        at.strftime("%Y-%m-%d"),
        clock,
    )


def in_both_zones(at: datetime | None, zone: tzinfo) -> SafeString:
    if at is None or str(zone) == "UTC":
        return moment(at)
    both = two_lines(format_html("{} UTC", moment(at)), local_moment(at, zone))
    return format_html('<span class="staff-zones">{}</span>', both)


def links(targets: Iterable[tuple[str, str]]) -> SafeString:
    made = ((link(href, text),) for text, href in targets)
    return format_html('<span class="staff-links">{}</span>', format_html_join("", "{}", made))


def state(word: str | None) -> SafeString:
    if not word:
        return NOTHING
    return format_html('<span class="staff-state staff-state-{}">{}</span>', word, spoken(word))


def spoken(word: str) -> str:
    return word.replace("_", " ")


def yes(value: bool, no: str = "no") -> str:
    return "yes" if value else no


def span(length: timedelta | None) -> str | SafeString:
    if length is None:
        return NOTHING
    total = length.total_seconds()
    if total < 60:
        return f"{total:.1f} s"
    left = int(total)
    parts: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def money(usd: Decimal | None) -> str | SafeString:
    if usd is None:
        return NOTHING
    return f"${usd:,.2f}" if usd >= 1 else f"${usd.normalize():f}"


def number(value: int | None) -> str | SafeString:
    return NOTHING if value is None else f"{value:,}"


def seconds(count: int | None) -> str | SafeString:
    return NOTHING if count is None else f"{count:,} s"


def took(milliseconds: int) -> str:
    return f"{milliseconds:,} ms"


def text(value: str | None) -> str | SafeString:
    return value or NOTHING


def two_lines(first: Any, second: Any) -> SafeString:
    """Returns a value with a second one below it in a quiet colour, or the first alone if there is no second one."""
    if not second:
        return conditional_escape(first)
    return format_html('{}<br><span class="staff-quiet">{}</span>', first, second)


def excerpt(value: str | None) -> str | SafeString:
    """Returns the first line of a text, cut to what a list has room for. A tooltip shows the whole text."""
    first = (value or "").strip().partition("\n")[0]
    if not value or not first:
        return NOTHING
    shown = first if len(first) <= _EXCERPT else f"{first[:_EXCERPT].rstrip()}…"
    return format_html('<span class="staff-wide" title="{}">{}</span>', value, shown)


def long_text(value: str | None) -> SafeString:
    return format_html('<pre class="staff-text">{}</pre>', value) if value else NOTHING


def url(address: str | None) -> str | SafeString:
    """Returns a customer's URL without its query and fragment, because these may contain secret keys (SPEC §9)."""
    if not address:
        return NOTHING
    plain = without_query(address)
    return plain if plain == address else f"{plain}{address[len(plain)]}…"


def data(value: Any, *, depth: int = 0) -> str | SafeString:
    if value is None:
        return NOTHING
    if isinstance(value, Mapping) and depth < _DEEPEST:
        rows = ((name, data(item, depth=depth + 1)) for name, item in value.items())
        return format_html(
            '<table class="staff-data">{}</table>',
            format_html_join("", "<tr><th>{}</th><td>{}</td></tr>", rows),
        )
    if isinstance(value, list) and depth < _DEEPEST:
        items = ((data(item, depth=depth + 1),) for item in value)
        return format_html(
            '<ul class="staff-data">{}</ul>', format_html_join("", "<li>{}</li>", items)
        )
    if isinstance(value, bool):
        return yes(value)
    return str(value)


def changes(metadata: Mapping[str, Any]) -> SafeString:
    """Returns a line for each changed field of an audit row. `[old, new]` is shown with an arrow."""
    lines = ((name, _change(value)) for name, value in metadata.items())
    return format_html_join("", '<div class="staff-change"><b>{}</b> {}</div>', lines) or NOTHING


def _change(value: Any) -> str | SafeString:
    if isinstance(value, list) and len(value) == 2 and not any(map(_is_nested, value)):
        return format_html("{} → {}", data(value[0]), data(value[1]))
    return data(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list)
