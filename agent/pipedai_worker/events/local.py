"""Writes what a run's program does to a file, without secrets, for a dashboard on the same machine to show."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.executors.stream import SHORTEST_CUT_STRING
from pipedai_worker.logs import get_logger
from pipedai_worker.redact import Redactor

log = get_logger(__name__)

VARIABLE = "PIPEDAI_LOCAL_RUN_EVENTS"
DEFAULT_ROOT = Path("~/.pipedai/runs")
# These limit the size of one file, the size of one event's payload, and the number of files. Together all files stay
# below 2 GiB.
LARGEST_FILE_BYTES = 8 * 1024 * 1024
LARGEST_PAYLOAD_BYTES = 256 * 1024
LONGEST_TYPE = 100
KEPT_RUNS = 200
SUFFIX = ".ndjson"

Sink = Callable[[str, Any], None]


def wanted() -> bool:
    """Tell whether the environment variable PIPEDAI_LOCAL_RUN_EVENTS asks for such files."""
    return os.environ.get(VARIABLE, "").lower() in {"1", "true", "yes"}


def directory(worker_id: str) -> Path:
    """Return the directory that holds the event files of one worker's runs."""
    return DEFAULT_ROOT.expanduser() / worker_id


class RunEvents:
    """The event file of one run, with mode 0600. Each event is added at once, as a line `{ seq, type, ts, payload }`.

    If the file can't be written, the events are lost and the run continues.
    """

    def __init__(self, place: Path, run_id: str, redactor: Redactor) -> None:
        self._redactor = redactor
        self._seq = self._size = 0
        self._descriptor: int | None = None
        with self._or_none():
            durable.private_directory(place)
            _forget_oldest(place)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(place / f"{run_id}{SUFFIX}", flags, 0o600)

    def write(self, kind: str, payload: Any) -> None:
        """Append an event. When the file is full, append one last event, `events.truncated`, and nothing after it."""
        if self._descriptor is None:
            return
        line = self._line(kind, self._redacted(payload))
        over = self._size + len(line) > LARGEST_FILE_BYTES
        if over:
            line = self._line("events.truncated", {"bytes": self._size})
        with self._or_none():
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._seq += 1
            self._size += len(line)
        if over:
            self.close()

    def close(self) -> None:
        """Close the file. Events that come later are not written."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _line(self, kind: str, payload: Any) -> bytes:
        moment = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        event = {
            "seq": self._seq + 1,
            "type": self._redactor.redact(kind)[:LONGEST_TYPE],
            "ts": moment.replace("+00:00", "Z"),
            "payload": payload,
        }
        # json.dumps writes only ASCII. Characters that break a line or are invalid in UTF-8 are escaped, so each event
        # is one line.
        return json.dumps(event).encode() + b"\n"

    def _redacted(self, value: Any) -> Any:
        try:
            # The length is checked before the secrets are replaced, because replacing them in a large payload takes
            # long.
            length = len(json.dumps(value))
            if length > LARGEST_PAYLOAD_BYTES:
                return {"truncated": True, "bytes": length}
            return self._redactor.redact_json(value, self._redacted_string)
        except RecursionError:
            return {"truncated": True}

    def _redacted_string(self, text: str) -> str:
        if len(text) >= SHORTEST_CUT_STRING:
            return self._redactor.redact_cut_off(text)
        return self._redactor.redact(text)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("a run's events can't be written: %s", error.strerror)
            self.close()


def _forget_oldest(place: Path) -> None:
    """Remove the oldest event files, so that one more file can be added without exceeding KEPT_RUNS."""
    files = []
    for path in place.glob(f"*{SUFFIX}"):
        # Another run's thread may be removing the same file.
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path))
    for _, path in sorted(files)[: max(0, len(files) - KEPT_RUNS + 1)]:
        path.unlink(missing_ok=True)
