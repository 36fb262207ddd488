"""The small parts of the console's pages: states, times, money and durations, each shown in one way, and texts of runs
and strangers, made safe: no character in them is invisible, and none affects the page around it.
"""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from notices.states import NEEDS
from pipedai.api.renderers import dollars

register = template.Library()

# For each state of the API, what people read, and the icon and the tone of the badge.
_STATES = {
    "failing": ("Failing", "cross", "bad"),
    "late": ("Late", "clock", "warn"),
    "ok": ("Healthy", "check", "good"),
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
    "nothing_new": ("Nothing new", "tick", "calm"),
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
    "awaited": ("Waiting for the machine", "clock", "calm"),
    "registered": ("Registered", "play", "busy"),
    "arrived": ("Connected", "check", "good"),
    "over": ("Expired", "cross", "bad"),
    "skipped_missed": ("Missed: the service was down", "cross", "bad"),
    "unauthorized": ("Not connected yet", "clock", "warn"),
    "connected": ("Connected", "check", "good"),
    "needs_login": ("Needs a new login", "cross", "bad"),
    "open": ("Open", "cross", "bad"),
    "closed": ("Closed", "check", "good"),
    "pending": ("On its way", "clock", "busy"),
    "delivered": ("Delivered", "check", "good"),
    "dead": ("Not delivered", "cross", "bad"),
    "digested": ("In a digest", "check", "good"),
    "approval_requested": ("Approvals", "pause", "warn"),
    "run.ended": ("Ends of runs", "tick", "calm"),
    "run.result": ("Results", "tick", "calm"),
    "mostly_shut": ("Most are refused", "warn", "warn"),
    "shut": ("All are refused", "cross", "bad"),
    "unheard": ("Nothing yet", "clock", "calm"),
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
    "owner": ("Owner", "account", "calm"),
    "admin": ("Admin", "settings", "calm"),
    "operator": ("Operator", "play", "calm"),
    "viewer": ("Viewer", "search", "calm"),
    "pwk": ("A program", "dash", "calm"),
    "wrk": ("A new machine", "dash", "calm"),
    "hos": ("A machine with several workers", "dash", "calm"),
    "worker": ("Machine", "dash", "calm"),
    **{kind: need.badge for kind, need in NEEDS.items()},
}
_ROLES = ("viewer", "operator", "admin", "owner")


@register.filter
def word(state: str) -> str:
    """Returns the word that people read for a state of the API."""
    return _STATES[state][0] if state in _STATES else state


@register.simple_tag
def icon(name: str) -> SafeString:
    """Shows an icon of pipedai/icons.html. It has no text of its own: a word stands beside it, or labels its link."""
    return format_html('<svg class="icon" aria-hidden="true"><use href="#i-{}"/></svg>', name)


@register.simple_tag
def badge(state: str) -> SafeString:
    """Shows a state as an icon and a word, so that it does not depend on the colour."""
    said, shown, tone = _STATES.get(state, (state, "dash", "calm"))
    return format_html('<span class="badge {}">{}{}</span>', tone, icon(shown), said)


@register.filter
def ending(run: dict[str, Any]) -> str:
    """Returns the state of a run for `badge`, which differs for a success that found nothing new."""
    return "nothing_new" if run["nothingNew"] else str(run["status"])


@register.filter
def initials(name: str) -> str:
    """Returns one or two letters for a name, or for an e-mail address."""
    words = name.partition("@")[0].replace(".", " ").split()
    return "".join(each[0] for each in words[:2]).upper() or "?"


@register.filter
def tone(state: str) -> str:
    """Returns the tone of a state: `good`, `bad`, `warn`, `busy` or `calm`."""
    return _STATES.get(state, ("", "", "calm"))[2]


@register.filter
def titled(state: str) -> str:
    """Returns a state for the beginning of a browser tab's title: `✕ Failed`."""
    said, _, tone = _STATES.get(state, (state, "", "calm"))
    return f"{_MARKS[tone]} {said}"


_MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "▸", "calm": "–"}


@register.simple_tag
def when(moment: str | None, style: str = "") -> str:
    """Shows a time of the API in UTC, which a script converts to the reader's zone. Its `title` has both. The style
    `seconds` shows the clock with seconds, `clock` without, `day` only the date, `ago` how long ago it was or how far
    ahead it is, and `since` how long something has lasted.
    """
    if not moment:
        return "–"
    at, now = datetime.fromisoformat(moment).astimezone(UTC), datetime.now(UTC)
    words = f"{_day(at)} UTC"
    if style in {"ago", "since"}:
        away = (at - now).total_seconds()
        apart = duration(int(abs(away)) * 1000, parts=1 if style == "ago" else 2)
        shown = f"in {apart}" if away > 0 else f"{apart} ago"
        shown = apart if style == "since" else "now" if abs(away) < 1 else shown
    else:
        shown = {
            "seconds": f"{at:%H:%M:%S} UTC",
            "day": f"{at.day} {at:%b}",
            "clock": f"{at:%H:%M}",
        }.get(style, words)
    return format_html(
        '<time datetime="{}" data-local="{}" title="{}">{}</time>', moment, style, words, shown
    )


def _day(at: datetime) -> str:
    year = "" if at.year == datetime.now(UTC).year else f" {at.year}"
    return f"{at:%a} {at.day} {at:%b}{year}, {at:%H:%M}"


@register.filter
def money(amount: str | Decimal | None) -> str:
    """Shows an amount of US dollars with cents."""
    return "–" if amount is None else dollars(amount)


@register.filter
def duration(milliseconds: int | None, *, parts: int = 2) -> str:
    """Shows a duration in its two largest units, or in fewer."""
    if milliseconds is None:
        return "–"
    seconds = milliseconds // 1000
    if milliseconds < 10_000 and milliseconds % 1000:
        return f"{milliseconds} ms" if seconds < 1 else f"{milliseconds / 1000:.1f} s"
    units = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    first = next((index for index, (number, _) in enumerate(units) if number), 3)
    shown = [f"{number} {unit}" for number, unit in units[first : first + parts] if number]
    return " ".join(shown) or "0 s"


_WEEKDAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays")
_OF_WEEKS = {"*": "every day", "1-5": "weekdays", "mon-fri": "weekdays", "0,6": "weekends"} | {
    key: said
    for number, said in enumerate(_WEEKDAYS)
    for key in (str(number), said[:3].lower(), said[:3])
}


@register.filter
def rhythm(schedule: str | None, timezone: str) -> str:
    """Returns a schedule in a few words, such as `06:00, weekdays (Europe/Berlin)`, or the schedule itself if no words
    fit. The time zone is left out where it makes no difference.
    """
    if schedule is None:
        return ""
    minute, hour, day, month, weekday = [*schedule.split(), "", "", "", "", ""][:5]
    is_usual = minute.isdecimal() and (day, month) == ("*", "*") and weekday in _OF_WEEKS
    if is_usual and (hour, weekday) == ("*", "*"):
        return f"hourly at :{minute:0>2} ({timezone})"
    if minute.startswith("*/") and (hour, day, month, weekday) == ("*", "*", "*", "*"):
        return f"every {minute[2:]} minutes"
    hours = hour.split(",")
    if is_usual and len(hours) <= 3 and all(map(str.isdecimal, hours)):
        at = " and ".join(f"{each:0>2}:{minute:0>2}" for each in hours)
        return f"{at}, {_OF_WEEKS[weekday]} ({timezone})"
    return f"{schedule} ({timezone})"


# The words in a User-Agent that identify a browser or a system. Most browsers also name others, after their own.
_BROWSERS = {
    "Edg/": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


@register.filter
def device(user_agent: str) -> str:
    """Returns a browser and its system, such as `Chrome on Linux`, or the beginning of a program's User-Agent."""
    browser, system = (
        next((known for word, known in words.items() if word in user_agent), "")
        for words in (_BROWSERS, _SYSTEMS)
    )
    return f"{browser} on {system}" if browser and system else user_agent[:80] or "–"


@register.filter
def may(environment: dict[str, str], role: str) -> bool:
    """Returns whether the visitor's role in the environment is at least the given one. Pages use it to offer nothing
    that the API would refuse.
    """
    return _ROLES.index(environment["role"]) >= _ROLES.index(role)


# Control characters, such as the escapes that colour a terminal, and those that change the direction of the text around
# them. Browsers show none of them. Tabs and line ends are not among them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Indenting makes deeply nested JSON many times as long. Above this many characters it stays on one line.
_LONGEST_INDENTED = 256 * 1024
_INDENTING = json.JSONEncoder(indent=2, ensure_ascii=False)


@register.filter
def visible(text: str | None) -> str:
    """Returns a text in which each invisible control character is written as its number, such as \\u001b."""
    lines = (text or "").replace("\r\n", "\n")
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", lines)


@register.filter
def first_line(text: str | None) -> str:
    """Returns the first line of a message, or its beginning if the line is long."""
    line = visible((text or "").strip()[:2000]).partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:299]}…"


@register.filter
def timed(sentence: str | None, times: list[dict[str, str]] | None = None) -> SafeString:
    """Shows a sentence of the API. Its `times` replace the API's words for them and look like all times. Text between
    backticks is shown as code.
    """
    moments = {str(escape(each["words"])): each["at"] for each in times or ()}
    words = "|".join(re.escape(each) for each in sorted(moments, key=len, reverse=True))
    shown = re.sub("`(.+?)`", r"<code>\1</code>", str(escape(visible(sentence))))
    if words:
        shown = re.sub(words, lambda found: when(moments[found[0]]), shown)
    return mark_safe(shown)  # noqa: S308 - of parts that are escaped


@register.filter
def spaced(word: str) -> str:
    """Returns a word of the worker protocol, such as `tool_call`, as people read it."""
    return word.replace("_", " ")


@register.filter
def indented(value: Any) -> str:
    """Returns a value of JSON as indented text."""
    chunks, length = [], 0
    for chunk in _INDENTING.iterencode(value):
        length += len(chunk)
        if length > _LONGEST_INDENTED:
            return visible(json.dumps(value, ensure_ascii=False))
        chunks.append(chunk)
    return visible("".join(chunks))


@register.filter
def fields(metadata: dict[str, Any]) -> str:
    """Returns the metadata of an audit row, a field a line, with an arrow between old and new values. Texts are
    unchanged, but indented below their field, so that none looks like a field of its own.
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
    """Returns the word that people read for the outcome or the effect of a tool call."""
    return _OF_CALLS.get(word, word)


@register.filter
def seconds(number: int) -> str:
    """Shows a number of seconds as a duration."""
    return duration(number * 1000)
