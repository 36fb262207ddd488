"""Writes the worker's log lines to stderr, as text or as JSON, without the secrets of its current runs."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable
from datetime import datetime, timezone

from pipedai_worker.redact import Redactor

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _KnownSecrets:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[str, tuple[str, ...]] = {}
        self._redactor = Redactor()

    def add(self, run_id: str, secrets: Iterable[str]) -> None:
        with self._lock:
            self._by_run[run_id] = tuple(secrets)
            self._rebuild()

    def replace(self, run_id: str, secrets: Iterable[str]) -> None:
        """Replace the secrets of a run, if it has not been removed meanwhile."""
        with self._lock:
            if run_id in self._by_run:
                self._by_run[run_id] = tuple(secrets)
                self._rebuild()

    def remove(self, run_id: str) -> None:
        with self._lock:
            self._by_run.pop(run_id, None)
            self._rebuild()
        # Python's `re` caches compiled patterns, and this run's contains its secrets, which must not stay in memory.
        re.purge()

    def _rebuild(self) -> None:
        self._redactor = Redactor(value for values in self._by_run.values() for value in values)

    def redact(self, text: str) -> str:
        return self._redactor.redact(text)


known_secrets = _KnownSecrets()


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = known_secrets.redact(message)
        moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
        if self._as_json:
            return json.dumps(
                {
                    "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "level": record.levelname.lower(),
                    "message": message,
                },
                ensure_ascii=False,
            )
        lines = message.split("\n") if record.exc_info else [message]
        text = "\n".join(
            _CONTROL.sub(lambda match: repr(match.group())[1:-1], line) for line in lines
        )
        return f"{moment.astimezone():%H:%M:%S} {record.levelname.lower():<7} {text}"


def configure(*, as_json: bool = False) -> None:
    """Send the worker's log lines to stderr; with `as_json`, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=as_json))
    root = logging.getLogger("pipedai_worker")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def get_logger(name: str) -> logging.Logger:
    return logging.getLogger(name)
