"""The base of operators' commands. It shows examples in `--help`, and says if the database is not ready."""

import argparse
import time
from typing import Any, ClassVar, Self, TextIO

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from django.db import DatabaseError, OperationalError

from pipedai import timeouts
from pipedai.checks.probes import unapplied_migrations
from pipedai.embedded.cluster import EmbeddedPostgresError
from pipedai.sql import reason, sqlstate

_BAR_WIDTH = 30
_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Progress:
    """Counts finished units, out of `total` if known. As a context manager it shows the final count."""

    def __init__(self, stream: TextIO, label: str, total: int | None = None) -> None:
        self._stream, self._label, self._total = stream, label, total
        self._terminal = stream.isatty()
        self._started = self._shown = time.monotonic()
        self.done = 0

    def add(self, units: int) -> None:
        self.done += units
        now = time.monotonic()
        if now - self._shown >= (_REDRAW_SECONDS if self._terminal else _LINE_SECONDS):
            self._shown = now
            self._show()

    def say(self, line: str) -> None:
        self._stream.write(f"\r{line}\x1b[K\n" if self._terminal else f"{line}\n")
        self._show()

    def __enter__(self) -> Self:
        if self._terminal:
            self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        if self._terminal:
            self._stream.write("\n")

    def _show(self) -> None:
        if self._terminal:
            self._stream.write(f"\r{self._text()}\x1b[K")
        else:
            self._stream.write(f"{self._text()}\n")
        self._stream.flush()

    def _text(self) -> str:
        seconds = time.monotonic() - self._started
        rate = self.done / seconds if seconds else 0.0
        text = f"{self._label}: {self.done:,}"
        if self._total is not None:
            text += f" of {self._total:,}"
            if self._terminal:
                filled = _BAR_WIDTH * self.done // max(1, self._total)
                text = f"{self._label} [{'#' * filled:-<{_BAR_WIDTH}}] {self.done:,} of {self._total:,}"
        text += f" in {seconds:.0f} s"
        if self._total is not None and rate and self.done < self._total:
            text += f", {(self._total - self.done) / rate:.0f} s to go"
        return text


# The SQLSTATE classes of errors that mean that the database is away: 08 no connection, 28 login refused, 3D no such
# database, 53 no resources, 57 shutting down. None stands for an error that the driver raised itself.
_AWAY = (None, "08", "28", "3D", "53", "57")
# The SQLSTATEs undefined_table and undefined_column, which mean that the database lacks this release's schema.
_OF_THE_SCHEMA = {"42P01", "42703"}


class _Formatter(DjangoHelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return argparse.RawDescriptionHelpFormatter._fill_text(self, text, width, indent)
        return super()._fill_text(text, width, indent)


class OperatorCommand(BaseCommand):
    """The base of operators' commands. `examples` ends the help. Raises CommandError if the database is not ready. The
    time-outs of web requests don't apply.
    """

    examples: ClassVar[str]

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, epilog=self.examples, **kwargs)
        parser.formatter_class = _Formatter
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Runs the command without time-outs, because the person who started it can stop it. Raises CommandError."""
        try:
            with timeouts.overriding(timeouts.COMMAND):
                return super().execute(*args, **options)
        except timeouts.PooledSession as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            if sentence := _not_ready(error):
                raise CommandError(sentence) from error
            raise


def _not_ready(error: DatabaseError) -> str | None:
    if isinstance(error.__cause__, EmbeddedPostgresError):
        return str(error)
    state = sqlstate(error)
    if isinstance(error, OperationalError) and (state and state[:2]) in _AWAY:
        return f"The database does not answer: {reason(error)}."
    if state in _OF_THE_SCHEMA and unapplied_migrations():
        return "The database's schema is not this release's: call `manage.py release`."
    return None
