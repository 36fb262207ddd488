"""Makes text of others harmless for a terminal, and shows times, sums and durations."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from decimal import Decimal

# Control characters, which move the cursor or begin escape sequences, and the marks that change the direction of text,
# hide it, end a line, or are seen by programs alone, such as the tags by which a text may instruct an agent unseen. A
# terminal must not act on what a run or an outsider wrote.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

_CALL = r"(?:GET|POST|PUT|PATCH|DELETE) /[\w/:-]+"
_CALLS = re.compile(rf" (?:with|at) {_CALL}(?: \([^)]*\))?| \({_CALL}\)|, to which {_CALL} leads")
_MOST_DOLLARS = 10**12


def safe(text: object) -> str:
    """Return the text with its control characters as escapes such as `\\x1b`. Line breaks and tabs stay."""
    return _CONTROLS.sub(_escape, str(text))


def one_line(text: object) -> str:
    """Return the text on one line, safe for a terminal."""
    return " ".join(safe(text).split())


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_calls(text: str) -> str:
    """Return what the API says to do without the calls of the API that do it: here, commands and pages do."""
    return _CALLS.sub("", text)


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")


def parse_time(value: object) -> datetime | None:
    """Read a time of the API, which is in UTC. Return None if it is none."""
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def local_time(value: object) -> str:
    """Show a time of the API in the zone of this machine, to the minute; `-` if there is none."""
    moment = parse_time(value) if value else None
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else "-"


def clock_time(value: object) -> str:
    moment = parse_time(value) if value else None
    return f"{moment.astimezone():%H:%M:%S}" if moment else "--:--:--"


def dollars(value: object) -> str:
    """Show a sum of US dollars as the API has it, with cents, or with four decimals below one cent."""
    try:
        amount = Decimal(str(value))
        if not abs(amount) < _MOST_DOLLARS:
            return "-"
    except ArithmeticError:
        return "-"
    return f"${amount:.4f}" if 0 < amount < Decimal("0.01") else f"${amount:.2f}"


def duration(milliseconds: object) -> str:
    if not isinstance(milliseconds, (int, float)):
        return "-"
    if milliseconds < 10_000:
        return f"{milliseconds / 1000:.1f} s"
    seconds = int(milliseconds // 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
