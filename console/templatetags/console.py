"""The small parts of the console's pages: states, times, money and durations, each shown in one way."""

from datetime import UTC, datetime
from decimal import Decimal
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
