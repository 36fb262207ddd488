"""The small parts of the console's pages: states, times, money and durations, each shown in one way, and texts of runs
and outsiders, in which nothing is hidden and nothing acts on the page around it.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from notices.states import NEEDS

register = template.Library()

# What people read for each state of the API, with the icon and the tone that go with the word.
_STATES = {
    "failing": ("Failing", "cross", "bad"),
    "late": ("Late", "clock", "bad"),
    "ok": ("Well", "check", "good"),
    "idle": ("Idle", "dash", "calm"),
    "paused": ("Environment paused", "pause", "warn"),
    "disabled": ("Paused", "pause", "calm"),
    "queued": ("Queued", "clock", "calm"),
    "claimed": ("Starting", "play", "busy"),
    "waiting": ("Waiting for approval", "pause", "warn"),
    "approved": ("Approved", "check", "good"),
    "rejected": ("Rejected", "cross", "calm"),
    "withdrawn": ("Canceled", "dash", "calm"),
    "undecided": ("Waiting for approval", "pause", "warn"),
    "running": ("Running", "play", "busy"),
    "succeeded": ("Succeeded", "check", "good"),
    "failed": ("Failed", "cross", "bad"),
    "timed_out": ("Timed out", "clock", "bad"),
    "canceled": ("Canceled", "dash", "calm"),
    "confirmed": ("Confirmed", "check", "good"),
    "unconfirmed": ("Not confirmed", "clock", "warn"),
    "fired": ("Ran", "check", "good"),
    "coming": ("To come", "clock", "calm"),
    "skipped_overlap": ("Skipped: the run before was unfinished", "cross", "warn"),
    "skipped_no_worker": ("Skipped: it had no machine", "cross", "warn"),
    "skipped_paused": ("Skipped: the environment was paused", "pause", "warn"),
    "online": ("Online", "check", "good"),
    "offline": ("Offline", "cross", "bad"),
    "busy": ("Working", "play", "busy"),
    "taken": ("None is free", "clock", "warn"),
    "unapproved": ("Not approved", "clock", "warn"),
    "limited": ("At its usage limit", "clock", "warn"),
    "used_up": ("Used up", "cross", "bad"),
    "near": ("Nearly used up", "clock", "warn"),
    "awaited": ("Waiting for it", "clock", "calm"),
    "registered": ("Registered", "play", "busy"),
    "arrived": ("It is here", "check", "good"),
    "over": ("Not valid any more", "cross", "bad"),
    "skipped_missed": ("Missed: the service was down", "cross", "bad"),
    "unauthorized": ("Not connected yet", "clock", "warn"),
    "connected": ("Connected", "check", "good"),
    "needs_login": ("Needs a new login", "cross", "bad"),
    "open": ("Not over", "cross", "bad"),
    "closed": ("Over", "check", "good"),
    "pending": ("On its way", "clock", "busy"),
    "delivered": ("Delivered", "check", "good"),
    "dead": ("Not delivered", "cross", "bad"),
    "digested": ("In a digest", "check", "good"),
    "event_fired": ("Started a run", "check", "good"),
    "event_filtered": ("Filtered", "dash", "calm"),
    "event_coalesced": ("Joined a run", "check", "good"),
    "event_refused": ("Refused", "cross", "bad"),
    "member": ("A member", "check", "good"),
    "asked": ("Asked, no answer yet", "clock", "warn"),
    "refused": ("Wants no mail", "dash", "calm"),
    "unknown": ("Not asked yet", "clock", "warn"),
    "valid": ("Valid", "check", "good"),
    "consumed": ("Used", "dash", "calm"),
    "expired": ("Expired", "clock", "calm"),
    "revoked": ("Revoked", "dash", "calm"),
    "pwk": ("A program", "dash", "calm"),
    "wrk": ("A new machine", "dash", "calm"),
    "hos": ("A host", "dash", "calm"),
    "worker": ("Machine", "dash", "calm"),
    **{kind: need.badge for kind, need in NEEDS.items()},
}
_ROLES = ("viewer", "operator", "admin", "owner")


@register.filter
def word(state: str) -> str:
    """Returns what people read for a state of the API."""
    return _STATES[state][0] if state in _STATES else state


@register.simple_tag
def badge(state: str) -> SafeString:
    """Shows a state as an icon and a word, so that it does not depend on the colour."""
    said, icon, tone = _STATES.get(state, (state, "dash", "calm"))
    return render_to_string("console/badge.html", {"word": said, "icon": icon, "tone": tone})


@register.simple_tag
def when(moment: str | None, zone: str | None = None) -> str:
    """Shows a time of the API: in the zone of a trigger with UTC beside it, or without one in UTC, which a script turns
    into the browser's zone.
    """
    if not moment:
        return "–"
    at = datetime.fromisoformat(moment).astimezone(UTC)
    if zone is None:
        return format_html('<time datetime="{}" data-local>{} UTC</time>', moment, _day(at))
    there = at.astimezone(ZoneInfo(zone))
    utc = f"{at:%H:%M} UTC"
    beside = "" if zone == "UTC" else format_html(' <span class="soft">{}</span>', utc)
    shown = f"{_day(there)} {there:%Z}"
    return format_html('<time datetime="{}" title="{}">{}</time>{}', moment, zone, shown, beside)


def _day(at: datetime) -> str:
    year = "" if at.year == datetime.now(UTC).year else f" {at.year}"
    return f"{at:%a} {at.day} {at:%b}{year}, {at:%H:%M}"


@register.filter
def money(amount: str | None) -> str:
    """Shows an amount of US dollars: with cents, or below a dollar with four places where cents say too little."""
    if amount is None:
        return "–"
    dollars = Decimal(amount)
    places = 2 if dollars >= 1 or dollars == round(dollars, 2) else 4
    return f"${dollars:,.{places}f}"


@register.filter
def duration(milliseconds: int | None) -> str:
    """Shows a duration of some milliseconds in its two largest units."""
    if milliseconds is None:
        return "–"
    seconds = milliseconds // 1000
    if seconds < 1:
        return f"{milliseconds} ms"
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


@register.filter
def may(environment: dict[str, str], role: str) -> bool:
    """Whether the visitor's role in the environment is the given one or a higher one. A page offers nothing that the
    API would refuse.
    """
    return _ROLES.index(environment["role"]) >= _ROLES.index(role)


@register.simple_tag
def icon(name: str) -> SafeString:
    """Shows an icon of console/icons. It says nothing by itself: a word stands beside it, or is its link's label."""
    return render_to_string(f"console/icons/{name}.svg")


# Control characters, such as the escapes that colour a terminal, and those that turn the direction of the text around
# them. A browser shows none of them. Tabs and line ends stay.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Indenting makes deeply nested JSON many times as long. Above this many characters it stays on one line.
_LONGEST_INDENTED = 256 * 1024


@register.filter
def visible(text: str | None) -> str:
    """Returns a text with each character that acts without being seen written as its number, as in \\u001b."""
    lines = (text or "").replace("\r\n", "\n")
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", lines)


@register.filter
def first_line(text: str | None) -> str:
    """Returns the first line of a message, or its beginning if the line is long."""
    line = visible((text or "").strip()[:2000]).partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:299]}…"


@register.filter
def spaced(word: str) -> str:
    """Returns a word of a worker, such as `tool_call`, as people read it."""
    return word.replace("_", " ")


@register.filter
def indented(value: Any) -> str:
    """Returns a value of JSON as indented text."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > _LONGEST_INDENTED:
        text = json.dumps(value, ensure_ascii=False)
    return visible(text)


@register.filter
def fields(metadata: dict[str, Any]) -> str:
    """Returns what an audit row tells, a field a line, and a change with an arrow. Texts are as they were written, but
    indented below their field, so that none looks like a field of its own.
    """
    lines = (f"{name}: {_field(value)}" for name, value in metadata.items())
    return visible("\n".join(line.replace("\n", "\n    ") for line in lines))


def _field(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return " → ".join(map(_field, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_OF_CALLS = {
    "ok": "Answered",
    "error": "Failed",
    "unknown": "No answer",
    "none": "Changes nothing",
    "idempotent": "The same if repeated",
    "possible": "May have changed something",
}


@register.filter
def of_call(word: str) -> str:
    """Returns what people read for the outcome or the effect of a tool call."""
    return _OF_CALLS.get(word, word)
