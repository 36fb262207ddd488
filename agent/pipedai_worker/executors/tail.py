"""Keeps the beginning or the end of a program's output. Secrets in it are replaced before it is cut."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from pipedai_worker.redact import RedactingStream, Redactor
from pipedai_worker.running.process import Ending

# `Tail` keeps this many characters more than it was asked for, because blank lines at the end are removed later.
SPARE_CHARACTERS = 4096


class Head:
    """Takes a program's output in pieces and keeps a little more than its first `length` characters.

    `told` is called with each piece after its secrets are redacted. White space at the beginning is not kept.
    """

    def __init__(
        self, redactor: Redactor, length: int, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._redacting = RedactingStream(redactor)
        # One character more than `length` is kept, so that the code that cuts the text to `length` can see that it was
        # longer.
        self._room = length + 1
        self._told = told
        self._kept = ""

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of output."""
        self._keep(self._redacting.feed(self._decoder.decode(chunk)))

    def finish(self, ending: Ending) -> str:
        """Return the first characters of the whole output."""
        self._keep(self._redacting.feed(self._decoder.decode(b"", final=True)))
        self._keep(self._redacting.finish(cut_off=ending.killed))
        return self._kept.strip()

    def _keep(self, text: str) -> None:
        if text:
            self._told(text)
        if len(self._kept) < self._room:
            self._kept = (self._kept + text).lstrip()[: self._room]


class Tail:
    """Takes a program's output in pieces and keeps a little more than its last `length` characters.

    `told` is called with each piece after its secrets are redacted. The end of a piece is held back until the next
    piece comes, because a secret may begin there.
    """

    def __init__(
        self, redactor: Redactor, length: int, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._redacting = RedactingStream(redactor)
        self._length = length
        self._told = told
        self._kept = ""
        self._cut = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of output."""
        self._keep(self._redacting.feed(self._decoder.decode(chunk)))

    def finish(self, ending: Ending) -> str:
        """Return the last characters of the output. If its beginning is cut off, the text begins with a whole line."""
        self._keep(self._redacting.feed(self._decoder.decode(b"", final=True)))
        self._keep(self._redacting.finish(cut_off=ending.killed))
        text = self._kept.strip()
        if self._cut or len(text) > self._length:
            text = text[-self._length :]
            _, newline, whole_lines = text.partition("\n")
            text = whole_lines if newline else text
        return text

    def _keep(self, text: str) -> None:
        if text:
            self._told(text)
        self._kept += text
        room = self._length + SPARE_CHARACTERS
        if len(self._kept) > room:
            self._kept = self._kept[-room:]
            self._cut = True
