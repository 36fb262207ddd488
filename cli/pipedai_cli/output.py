"""Writes tables and details to stdout, and progress to a terminal. All text is made harmless for a terminal first."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

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
    return _CONTROLS.sub(
        lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(text)
    )


def one_line(text: object) -> str:
    """Return the text on one line, safe for a terminal."""
    return " ".join(safe(text).split())


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_calls(text: str) -> str:
    """Return the API's advice without the API calls in it, because a person here uses commands and pages instead."""
    return _CALLS.sub("", text)


def parse_time(value: object) -> datetime | None:
    """Read a time of the API, which is in UTC. Return None if it is none."""
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def local_time(value: object, form: str = "%Y-%m-%d %H:%M", none: str = "-") -> str:
    """Show a time of the API in the zone of this machine, by default to the minute; `none` if there is none."""
    moment = parse_time(value) if value else None
    return moment.astimezone().strftime(form) if moment else none


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


# The most characters of a cell. A longer one is cut, so that a long name leaves room for the other columns.
_WIDEST = 60
# The columns of text. If the terminal is narrow, they are cut, but not below _NARROWEST characters. Ids and times
# are not cut, because a part of them is of no use.
_TEXTS = {"NAME", "TRIGGER", "MESSAGE", "SCHEDULE", "TOOL", "TYPE", "DECISIONS"}
_NARROWEST = 10
_GAP = 2
# The width of lines if stdout is no terminal. It is large, because a program may read the lines.
_PIPED_WIDTH = 1000

_COLOURS = {
    "succeeded": "green",
    "online": "green",
    "ok": "green",
    "connected": "green",
    "create": "green",
    "failed": "red",
    "timed_out": "red",
    "failing": "red",
    "late": "red",
    "delete": "red",
    "offline": "yellow",
    "waiting": "yellow",
    "queued": "yellow",
    "update": "yellow",
    "running": "cyan",
    "claimed": "cyan",
}


class Output:
    """One way to print: people get text, and with `--json` programs get the API's own JSON."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        is_terminal = sys.stdout.isatty()
        plain = bool(os.environ.get("NO_COLOR"))
        self._console = Console(
            no_color=plain or not is_terminal,
            highlight=False,
            markup=False,
            emoji=False,
            width=None if is_terminal else _PIPED_WIDTH,
            soft_wrap=True,
        )
        self._progress = Console(stderr=True, no_color=plain, highlight=False, markup=False)

    @property
    def shows_progress(self) -> bool:
        return self._progress.is_terminal and not self.as_json

    def printed_json(self, value: Any) -> bool:
        """Write the API's JSON if `--json` asks for it, and tell whether it does."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=True, indent=2))
        return self.as_json

    def line(self, text: object = "", *, style: str = "") -> None:
        self._console.print(Text(safe(text), style=style))

    def note(self, text: str) -> None:
        """Say something to the person at the terminal that is no answer of the command."""
        self._progress.print(Text(safe(text)))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], *, none: str) -> None:
        """Write a table, without the last columns if they do not fit; if it has no rows, say `none` on stderr."""
        lines = [[Text(head, style="bold") for head in heads]]
        lines += ([_cell(value) for value in row] for row in rows)
        if len(lines) == 1:
            self.note(none)
            return
        widths = [
            max(cell_len(cell.plain) for cell in column) for column in zip(*lines, strict=True)
        ]
        shown = _fitted(heads, widths, self._console.width)
        for line in lines:
            for cell, width in zip(line, shown, strict=False):
                cell.truncate(width, overflow="ellipsis", pad=True)
            text = Text(" " * _GAP).join(line[: len(shown)])
            text.rstrip()
            self._console.print(text)

    def details(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Write names and values in two columns. What has no value is left out."""
        shown = [(name, value) for name, value in pairs if value not in (None, "", [])]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            first, *others = safe(value).splitlines() or [""]
            self._console.print(Text(f"{name:{width}}  ", style="bold") + _coloured(first))
            for line in others:
                self._console.print(Text(f"{'':{width}}  {line}"))

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[], None]]:
        """Show on a terminal that something goes on, until the block ends or calls the function that this yields."""
        if not self.shows_progress:
            yield lambda: None
            return
        shown = Text(shorten(one_line(text), self._progress.width - 4))
        with self._progress.status(shown) as status:
            yield status.stop


def _fitted(heads: Sequence[str], widths: list[int], room: int) -> list[int]:
    """Return the widths of the columns that fit into a line of `room` cells: at least that of the first."""
    least = [
        min(width, _NARROWEST) if head in _TEXTS else width
        for head, width in zip(heads, widths, strict=True)
    ]
    while len(least) > 1 and sum(least) + _GAP * (len(least) - 1) > room:
        least.pop()
    spare = max(0, room - sum(least) - _GAP * (len(least) - 1))
    for number, width in enumerate(least):
        more = min(spare, widths[number] - width)
        least[number] += more
        spare -= more
    return least


def _cell(value: object) -> Text:
    return _coloured(shorten(one_line("-" if value is None else value), _WIDEST))


def _coloured(text: str) -> Text:
    return Text(text, style=_COLOURS.get(text, ""))
