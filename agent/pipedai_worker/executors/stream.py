"""Reads a program's output in bounded memory: JSON objects, one a line, or a text's two ends without secrets."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

from pipedai_worker.redact import RedactingStream, Redactor
from pipedai_worker.running.process import Ending
from pipedai_worker.values import has_too_many_values, parse

LONGEST_LINE_BYTES = 4 * 1024 * 1024
# In a longer line, or one with too many values, each string is cut to this length, so that the rest can be read.
LONGEST_STRING_BYTES = 64 * 1024
# A string with fewer characters than this was certainly not cut, because JSON takes at most 12 bytes for a character.
SHORTEST_CUT_STRING = LONGEST_STRING_BYTES // 12 - 1

# Matches the inside of a JSON string, up to the closing quote or an escape (`\n`, `\u00e9`) that is not complete yet.
_STRING_INSIDE = re.compile(rb'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.DOTALL)
_LONGEST_ESCAPE = 6
# The pattern is applied to pieces of this size, because the memory that it needs grows with the length of the text.
_PIECE_BYTES = 16 * 1024


class JsonLines:
    """Calls `sink` with each line that is a JSON object. In a line that is too long or has too many values, long
    strings are cut; if it is still too long, it is skipped.
    """

    def __init__(self, sink: Callable[[dict[str, Any]], None]) -> None:
        self._sink = sink
        self._line = bytearray()
        self._cutter: StringCutter | None = None
        self._skipping = False

    def feed(self, chunk: bytes) -> None:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._append(chunk[start:end])
            self._end_line()
            start = end + 1
        self._append(chunk[start:])

    def finish(self) -> None:
        self._end_line()

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        if self._cutter is None and len(self._line) + len(piece) > LONGEST_LINE_BYTES:
            self._cutter = StringCutter(LONGEST_STRING_BYTES)
            self._line, piece = bytearray(), bytes(self._line) + piece
        self._line += self._cutter.feed(piece) if self._cutter else piece
        if len(self._line) > LONGEST_LINE_BYTES:
            self._skipping = True
            self._line.clear()

    def _end_line(self) -> None:
        line, self._line = bytes(self._line), bytearray()
        self._cutter, skipped, self._skipping = None, self._skipping, False
        if skipped or not line.lstrip().startswith(b"{"):
            return
        if has_too_many_values(line):
            line = StringCutter(LONGEST_STRING_BYTES).feed(line)
        try:
            value = parse(line.decode("utf-8", errors="replace"))
        except ValueError:
            return
        if isinstance(value, dict):
            self._sink(value)


class StringCutter:
    """Cuts every long string in a JSON text to a number of bytes. The text comes in pieces."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._inside = False
        self._kept = 0
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        starts = range(0, len(piece), _PIECE_BYTES)
        return b"".join(self._feed(piece[start : start + _PIECE_BYTES]) for start in starts)

    def _feed(self, piece: bytes) -> bytes:
        data, self._held = self._held + piece, b""
        left = []
        position = 0
        while position < len(data):
            if self._inside:
                end = self._end_of_inside(data, position)
                left.append(self._cut(data[position:end]))
                if end < len(data) and data[end : end + 1] != b'"':
                    # The text ends in the middle of an escape. The escape is kept until the next piece completes it.
                    self._held = data[end:]
                    break
            else:
                quote = data.find(b'"', position)
                end = quote if quote >= 0 else len(data)
                left.append(data[position:end])
            if end < len(data):
                left.append(b'"')
                self._inside, self._kept = not self._inside, 0
            position = end + 1
        return b"".join(left)

    @staticmethod
    def _end_of_inside(data: bytes, start: int) -> int:
        end = _matched(data, start)
        while (
            end < len(data) and data[end : end + 1] == b"\\" and end + _LONGEST_ESCAPE <= len(data)
        ):
            # JSON has no such escape. It is passed on unchanged, and the parser will refuse the whole line.
            end = _matched(data, end + 2)
        return end

    def _cut(self, inside: bytes) -> bytes:
        room = self._longest - self._kept
        if len(inside) <= room:
            self._kept += len(inside)
            return inside
        self._kept = self._longest
        return inside[: _matched(inside[:room], 0)]


def _matched(data: bytes, start: int) -> int:
    match = _STRING_INSIDE.match(data, start)
    return match.end() if match else start


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
        # One character more than `length` is kept, so that the code that cuts the text sees that it was longer.
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
