"""Writes what a run's program does to a file, without secrets, for a dashboard on the same machine to show."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipedai_worker.disk import durable
from pipedai_worker.events.spool import SUFFIX, EventFile, make_room
from pipedai_worker.executors.stream import SHORTEST_CUT_STRING
from pipedai_worker.logs import get_logger
from pipedai_worker.redact import Redactor
from pipedai_worker.reporting.outcome import iso

log = get_logger(__name__)

VARIABLE = "PIPEDAI_LOCAL_RUN_EVENTS"
DEFAULT_ROOT = Path("~/.pipedai/runs")
# The bounds of one file, of one event's payload, and of the number of files. All files stay below 2 GiB.
LARGEST_FILE_BYTES = 8 * 1024 * 1024
LARGEST_PAYLOAD_BYTES = 256 * 1024
LONGEST_TYPE = 100
KEPT_RUNS = 200

Sink = Callable[[str, Any], None]


def wanted() -> bool:
    return os.environ.get(VARIABLE, "").lower() in {"1", "true", "yes"}


def directory(worker_id: str) -> Path:
    return DEFAULT_ROOT.expanduser() / worker_id


class RunEvents:
    """The event file of one run, with a line `{ seq, type, ts, payload }` for each. Errors only lose events."""

    def __init__(self, directory: Path, run_id: str, redactor: Redactor) -> None:
        self._redactor = redactor
        self._file: EventFile | None = None
        with self._or_none():
            durable.private_directory(directory)
            make_room(directory, most=KEPT_RUNS - 1)
            path = directory / f"{run_id}{SUFFIX}"
            self._file = EventFile(path, LARGEST_FILE_BYTES, sys.maxsize)

    def write(self, kind: str, payload: Any) -> None:
        """Append an event. When the file is full, append one last event, `events.truncated`, and nothing after it."""
        if self._file is None or not self._file.open:
            return
        clean, had = self._redacted(payload), {"bytes": self._file.size}
        with self._or_none():
            self._file.append(
                lambda seq: self._line(seq, kind, clean),
                lambda seq: self._line(seq, "events.truncated", had),
            )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _line(self, seq: int, kind: str, payload: Any) -> bytes:
        name = self._redactor.redact(kind)[:LONGEST_TYPE]
        event = {"seq": seq, "type": name, "ts": iso(time.time()), "payload": payload}
        # json.dumps writes only ASCII, so an event has no line end in it, and nothing that is invalid in UTF-8.
        return json.dumps(event).encode() + b"\n"

    def _redacted(self, value: Any) -> Any:
        try:
            # The length is checked first, because replacing secrets in a large payload takes long.
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
