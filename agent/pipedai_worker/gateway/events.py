"""Splits a stream of server-sent events into events, wherever the network has cut the stream into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
# A stored line takes about this many bytes of memory besides its text. They count towards the limit of an event,
# because an event of a million short lines would otherwise take thirty times the memory of one long line.
_LINE_COST = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):  # noqa: N818 - a state of the stream
    """One event is larger than the limit."""


@dataclass(frozen=True)
class Event:
    """One event: its lines as they came, without line ends."""

    lines: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the event as bytes that a client reads as the same event."""
        return b"\n".join(self.lines) + b"\n\n"

    @property
    def kind(self) -> bytes:
        """Return the event's type: the value of its field `event`, or `message` if it has none."""
        return (self._values(b"event") or [b""])[-1] or b"message"

    @property
    def data(self) -> bytes:
        """Return the event's data, which is empty for comments."""
        return b"\n".join(self._values(b"data"))

    @property
    def has_id(self) -> bool:
        """Tell whether a client can resume the stream after this event."""
        return any(self._values(b"id"))

    def _values(self, field: bytes) -> list[bytes]:
        values = []
        for line in self.lines:
            name, _, value = line.partition(b":")
            if name == field:
                values.append(value[1:] if value[:1] == b" " else value)
        return values


class EventSplitter:
    """Takes the bytes of one stream. An event that the stream's end cuts off is dropped, as the HTML standard says."""

    def __init__(self, largest: int) -> None:
        """`largest` is how many bytes one event may have."""
        self._largest = largest
        self._held = bytearray()
        # How many bytes at the beginning of `_held` have been searched for a line end without finding one.
        self._searched = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes of the stream, and yield each event that they complete. Raises EventTooLarge."""
        self._held += chunk
        if not self._begun:
            if _BYTE_ORDER_MARK.startswith(self._held) and len(self._held) < len(_BYTE_ORDER_MARK):
                return
            self._begun = True
            if self._held.startswith(_BYTE_ORDER_MARK):
                del self._held[: len(_BYTE_ORDER_MARK)]
        yield from self._split()
        if self._size + len(self._held) > self._largest:
            raise EventTooLarge

    def _split(self) -> Iterator[Event]:
        if self._after_cr and self._held:
            # The bytes before these ended in CR, which ends a line. An LF that follows belongs to the same line end,
            # and is dropped.
            self._after_cr = False
            if self._held[:1] == b"\n":
                del self._held[:1]
        position = 0
        while (end := _LINE_END.search(self._held, max(position, self._searched))) is not None:
            line = bytes(self._held[position : end.start()])
            position = self._searched = end.end()
            self._after_cr = end.group() == b"\r" and position == len(self._held)
            if line:
                self._lines.append(line)
                self._size += len(line) + _LINE_COST
                if self._size > self._largest:
                    raise EventTooLarge
            elif self._lines:
                event = Event(tuple(self._lines))
                self._lines, self._size = [], 0
                yield event
        del self._held[:position]
        self._searched = len(self._held)
