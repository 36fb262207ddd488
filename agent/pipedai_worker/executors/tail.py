"""Keeps the beginning or the end of a program's output. Secrets in it are replaced before it is cut."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from pipedai_worker.redact import RedactingStream, Redactor
from pipedai_worker.running.process import Ending

# `Tail` keeps this many characters more than it was asked for, because blank lines at the end are removed later.
SPARE_CHARACTERS = 4096


class _Output:
    """Passes each piece of output, redacted, to `listener`. The end of a piece waits, as a secret may begin there."""

    def __init__(
        self, redactor: Redactor, length: int, listener: Callable[[str], None] = lambda _: None
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._redacting = RedactingStream(redactor)
        self._length = length
        self._listener = listener
        self._kept = ""

    def feed(self, chunk: bytes) -> None:
        self._take(self._redacting.feed(self._decoder.decode(chunk)))

    def finish(self, ending: Ending) -> str:
        self._take(self._redacting.feed(self._decoder.decode(b"", final=True)))
        self._take(self._redacting.finish(cut_off=ending.killed))
        return self._kept.strip()

    def _take(self, text: str) -> None:
        if text:
            self._listener(text)
            self._keep(text)

    def _keep(self, text: str) -> None:
        raise NotImplementedError


class Head(_Output):
    """Keeps a little more than the first `length` characters, without white space at the beginning."""

    def _keep(self, text: str) -> None:
        # One character more than `length` is kept, so that whoever cuts the text sees that it was longer.
        if len(self._kept) <= self._length:
            self._kept = (self._kept + text).lstrip()[: self._length + 1]


class Tail(_Output):
    """Keeps a little more than the last `length` characters."""

    _cut = False

    def finish(self, ending: Ending) -> str:
        """Return the last characters of the output. If its beginning is cut off, the text begins with a whole line."""
        text = super().finish(ending)
        if self._cut or len(text) > self._length:
            text = text[-self._length :]
            _, newline, whole_lines = text.partition("\n")
            text = whole_lines if newline else text
        return text

    def _keep(self, text: str) -> None:
        self._kept += text
        room = self._length + SPARE_CHARACTERS
        if len(self._kept) > room:
            self._kept = self._kept[-room:]
            self._cut = True
