"""Keeps one run's events in a file, without secrets and bounded in size, until the API has taken them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipedai_worker.events.kinds import TRUNCATED

SUFFIX = ".ndjson"
# The API takes so much of a run (SPEC §18).
MOST_EVENTS = 20_000
MOST_BYTES = 5 * 1024 * 1024
# So much of these bytes is kept free for the last event, which says that there was more.
_ROOM_BYTES = 1024
# The API takes so many events, and 256 KiB, a call. Part of these bytes is kept for what a call has beside the events.
MOST_IN_A_CALL = 500
MOST_BYTES_IN_A_CALL = 240 * 1024
# The files of all runs together have at most so many bytes. Beyond that, the oldest files are removed.
MOST_BYTES_OF_ALL = 256 * 1024 * 1024


class SpoolWriter:
    """Appends a run's events to its file. Each is one line, in the form in which the API takes it.

    Nothing is synced to the disk: events survive a kill of the worker, and not every crash of the machine.
    """

    def __init__(self, path: Path) -> None:
        """Make the file, with mode 0600. A file of the same run, which an earlier claim has left, is removed first.

        Raises OSError.
        """
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._seq = self._size = 0

    @property
    def open(self) -> bool:
        """Tell whether further events are written."""
        return self._file >= 0

    def add(self, kind: str, text: str | None, data: dict[str, Any] | None) -> None:
        """Append an event. If the API would take no more, append one last event, `truncated`, and close the file.

        Raises OSError, and leaves no part of a line then.
        """
        if not self.open:
            return
        line = self._line(kind, text, data)
        full = self._seq + 1 >= MOST_EVENTS or self._size + len(line) > MOST_BYTES - _ROOM_BYTES
        if full:
            line = self._line(TRUNCATED, None, {"events": self._seq, "bytes": self._size})
        if os.write(self._file, line) < len(line):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._seq += 1
        self._size += len(line)
        if full:
            self.close()

    def close(self) -> None:
        """Close the file, to which nothing is added any more."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _line(self, kind: str, text: str | None, data: dict[str, Any] | None) -> bytes:
        return line_of(self._seq + 1, kind, text, data)


def line_of(seq: int, kind: str, text: str | None, data: dict[str, Any] | None) -> bytes:
    """Return an event of this moment in the API's form, as a line of JSON."""
    at = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"seq": seq, "at": at, "type": kind, "text": text, "data": data}
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


class SpoolReader:
    """Reads the events of a file that may still grow. The number of an event is that of its line, from 1 on."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError."""
        self._file = path.open("rb")
        # The number of the next event, and the place where its line begins.
        self.seq = 1
        self._offset = 0

    @property
    def removed(self) -> bool:
        """Tell whether the file has been removed, because the API has all of its events."""
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


def make_room(directory: Path) -> None:
    """Remove the oldest files, until those that are left have at most 256 MiB."""
    files = []
    for path in directory.glob(f"*{SUFFIX}"):
        # The thread that sends a file may be removing it.
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if left <= MOST_BYTES_OF_ALL:
            return
        path.unlink(missing_ok=True)
        left -= size
