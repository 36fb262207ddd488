"""The end of a program's output, redacted before it is cut so that no part of a secret is left."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from pipedai_worker.process import Ending
from pipedai_worker.redact import RedactingStream, Redactor

# Kept beside the length asked for: trailing blank lines are stripped.
SPARE_CHARACTERS = 4096


class Tail:
    """Feed it everything; it keeps the last `length` characters and a little.

    `told` gets each redacted piece, a little late: the end of one may be the start of a secret.
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
        """The last characters, now that all is told; whole lines, if something was left out."""
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
