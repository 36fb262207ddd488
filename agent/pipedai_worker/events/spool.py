"""Keeps one run's events in a file, without secrets and bounded in size, until the API has taken them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.events.kinds import TRUNCATED
from pipedai_worker.reporting.outcome import iso

SUFFIX = ".ndjson"
# The most events that the API takes of a run (API.md, `POST /workers/:id/runs/:runId/events`).
MOST_EVENTS = 20_000
MOST_BYTES = 5 * 1024 * 1024
# This many of these bytes are kept free for the last event, which says that there was more.
_ROOM_BYTES = 1024
# The most events that the API takes in a call. The call has 256 KiB at most, and some of that is not for events.
MOST_IN_A_CALL = 500
MOST_BYTES_IN_A_CALL = 240 * 1024
# The most bytes that the event files of all runs have together. Beyond that, the oldest files are removed.
MOST_BYTES_OF_ALL = 256 * 1024 * 1024


class EventFile:
    """A file to which events are appended until it is full. A crash of the machine may lose the last ones."""

    def __init__(
        self, path: Path, most_bytes: int, most_events: int, *, go_on: bool = False
    ) -> None:
        """Make the file, mode 0600, or with `go_on` continue the one that an earlier claim has left. Raises OSError."""
        earlier = path.read_bytes() if go_on and path.exists() else b""
        path.unlink(missing_ok=True)
        self._file = durable.create(path)
        self._most_bytes, self._most_events = most_bytes, most_events
        self.seq = self.size = 0
        # What follows the last line end is an event that a crash has cut off.
        for line in earlier.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._write(line)
        if self.seq >= most_events or self.size > most_bytes:
            self.close()

    @property
    def open(self) -> bool:
        return self._file >= 0

    def append(self, line: Callable[[int], bytes], last: Callable[[int], bytes]) -> None:
        """Append an event's line or, if it has no room, the last one. Both get the event's number. Raises OSError."""
        if not self.open:
            return
        number = self.seq + 1
        content = line(number)
        full = number >= self._most_events or self.size + len(content) > self._most_bytes
        self._write(last(number) if full else content)
        if full:
            self.close()

    def _write(self, line: bytes) -> None:
        if os.write(self._file, line) < len(line):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.seq += 1
        self.size += len(line)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class SpoolWriter(EventFile):
    """The file of a run's events in the form in which the API takes them."""

    def __init__(self, path: Path, *, go_on: bool = False) -> None:
        super().__init__(path, MOST_BYTES - _ROOM_BYTES, MOST_EVENTS, go_on=go_on)

    def add(self, kind: str, text: str | None, data: dict[str, Any] | None) -> None:
        had = {"events": self.seq, "bytes": self.size}
        self.append(
            lambda seq: line_of(seq, kind, text, data),
            lambda seq: line_of(seq, TRUNCATED, None, had),
        )


def line_of(seq: int, kind: str, text: str | None, data: dict[str, Any] | None) -> bytes:
    """Return an event of this moment in the API's form, as a line of JSON."""
    event = {"seq": seq, "at": iso(time.time()), "type": kind, "text": text, "data": data}
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


class SpoolReader:
    """Reads the events of a file that may still grow. The number of an event is that of its line, from 1 on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        # The number of the next event, and the place where its line begins.
        self.seq = 1
        self._offset = 0

    @property
    def removed(self) -> bool:
        return os.fstat(self._file.fileno()).st_nlink == 0

    def lines(self) -> list[bytes]:
        """Return the next events that one call of the API takes, without going on to those after them."""
        content = os.pread(self._file.fileno(), MOST_BYTES_IN_A_CALL, self._offset)
        # What follows the last line end is an event that is being written, or one that a crash has cut off.
        return content.split(b"\n")[:-1][:MOST_IN_A_CALL]

    def go_to(self, seq: int) -> None:
        """Make `seq` the number of the next event, or the end of the file if that has fewer."""
        if seq < self.seq:
            self.seq, self._offset = 1, 0
        while self.seq < seq and (lines := self.lines()):
            passed = lines[: seq - self.seq]
            self.seq += len(passed)
            self._offset += sum(len(line) + 1 for line in passed)

    def close(self) -> None:
        self._file.close()


def is_full(lines: list[bytes]) -> bool:
    """Tell whether a call with these events has so many of them that more are probably waiting."""
    return len(lines) == MOST_IN_A_CALL or sum(map(len, lines)) > MOST_BYTES_IN_A_CALL / 2


def make_room(directory: Path, *, most_bytes: float = inf, most: float = inf) -> None:
    """Remove the oldest files, until those that are left have at most so many bytes, and are at most so many."""
    files = []
    for path in directory.glob(f"*{SUFFIX}"):
        # Another thread, which sends this file or removes old ones, may be removing it.
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    size = sum(each for _, each, _ in files)
    for left, (_, each, path) in zip(range(len(files), 0, -1), sorted(files)):
        if size <= most_bytes and left <= most:
            return
        path.unlink(missing_ok=True)
        size -= each
