"""Writes tables and details to stdout, and progress to a terminal alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipedai_cli.text import one_line, safe, shorten

Json = dict[str, Any]

# A cell is cut after so many characters on a terminal, so that a long name leaves room for the others.
_WIDEST = 60
# On a narrow one, the widest cells are cut further, down to this.
_NARROWEST = 6
_GAP = 2
# What is piped elsewhere has lines as long as they are, within reason.
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

    def json(self, value: Any) -> None:
        click.echo(json.dumps(value, ensure_ascii=True, indent=2))

    def line(self, text: object = "", *, style: str = "") -> None:
        self._console.print(Text(safe(text), style=style))

    def note(self, text: str) -> None:
        """Say something to the person at the terminal that is no answer of the command."""
        self._progress.print(Text(safe(text)))

    def row(self, *cells: str, style: str = "") -> None:
        """Write a line of cells that are aligned for as long as they fit, as of a log."""
        self.line("  ".join(cells), style=style)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]], *, none: str) -> None:
        """Write a table, or the sentence `none` if it has no rows. The last column, which has the ids, is never cut."""
        cells = [[_cell(value) for value in row] for row in rows]
        if not cells:
            self.line(none)
            return
        widths = [
            max(len(head), *(cell.cell_len for cell in column))
            for head, column in zip(heads, zip(*cells, strict=True), strict=True)
        ]
        while sum(widths) + _GAP * (len(widths) - 1) > self._console.width:
            widest = max(range(len(widths) - 1), key=widths.__getitem__)
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            padding=(0, _GAP, 0, 0),
            width=sum(widths) + _GAP * (len(widths) - 1),
        )
        for head, width in zip(heads, widths, strict=True):
            table.add_column(head, no_wrap=True, overflow="ellipsis", width=width)
        for row in cells:
            table.add_row(*row)
        self._console.print(table, soft_wrap=False, crop=False)

    def items(
        self,
        rows: Iterable[Json],
        heads: Sequence[str],
        cells: Callable[[Json], Sequence[object]],
        *,
        none: str,
    ) -> None:
        """Write the rows of a list: as a table of their `cells`, or as JSON as the API has them."""
        if self.as_json:
            self.json({"items": list(rows)})
        else:
            self.table(heads, map(cells, rows), none=none)

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
    def progress(self, text: str) -> Iterator[None]:
        """Show on a terminal that something goes on."""
        if not self.shows_progress:
            yield
            return
        with self._progress.status(Text(one_line(text))):
            yield


def _cell(value: object) -> Text:
    return _coloured(shorten(one_line("-" if value is None else value), _WIDEST))


def _coloured(text: str) -> Text:
    return Text(text, style=_COLOURS.get(text, ""))
