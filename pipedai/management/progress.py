"""Shows the progress of a long command: as a bar on a terminal, elsewhere as a line from time to time."""

import time
from types import TracebackType
from typing import Self, TextIO

_BAR_WIDTH = 30
_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Progress:
    """Counts the finished units of some work, out of `total` if that is known.

    Use it as a context manager, which shows the final count when it ends.
    """

    def __init__(self, stream: TextIO, label: str, total: int | None = None) -> None:
        self._stream, self._label, self._total = stream, label, total
        self._terminal = stream.isatty()
        self._started = self._shown = time.monotonic()
        self.done = 0

    def add(self, units: int) -> None:
        """Adds to the number of finished units."""
        self.done += units
        now = time.monotonic()
        if now - self._shown >= (_REDRAW_SECONDS if self._terminal else _LINE_SECONDS):
            self._shown = now
            self._show()

    def say(self, line: str) -> None:
        """Prints a line of text, above the bar if there is one."""
        self._stream.write(f"\r{line}\x1b[K\n" if self._terminal else f"{line}\n")
        self._show()

    def __enter__(self) -> Self:
        if self._terminal:
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
