"""Watches what tests write into logs and the audit log, and answer: no token, no password, no session in it."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models.signals import post_init

from accounts.factories import PASSWORD
from audit.models import AuditEntry
from pipedai.api import tokens

_TOKEN = re.compile(r"(?:pwk|wrk|wkt)_[0-9A-Za-z]{49}")
_SESSION = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}")
# The answers that hold a token, once: what minted it.
_MINTING = re.compile(r"/api/v1/(?:workers/register|environments/[0-9a-f-]+/api-keys)")


def secrets_in(text: str) -> list[str]:
    """The tokens with a right checksum, session cookies and test users' passwords in a text."""
    found = [token for token in _TOKEN.findall(text) if tokens.prefix_of(token)]
    return [*found, *_SESSION.findall(text), *([PASSWORD] if PASSWORD in text else [])]


class Watch(logging.Handler):
    """Keeps where a secret was seen. Log records are looked at as they are printed."""

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at a log line."""
        if self.formatter is not None and secrets_in(line := self.format(record)):
            self.leaks.append(f"log line: {line}")

    def look_at_row(self, sender: Any, instance: AuditEntry, **_: Any) -> None:
        """Looks at an audit row that is about to be written, or was read."""
        if secrets_in(text := json.dumps(instance.metadata, default=str)):
            self.leaks.append(f"audit row {instance.action}: {text}")

    def look_at_answer(self, path: str, sent: str, body: bytes) -> None:
        """Looks at an answer of the API. A name that a caller chose goes back to them as it is."""
        text = body.decode(errors="replace")
        news = [secret for secret in secrets_in(text) if secret not in sent]
        if news and not _MINTING.fullmatch(path):
            self.leaks.append(f"answer of {path}: {text[:500]}")


_watches: list[Watch] = []


def answered(path: str, sent: str, body: bytes) -> None:
    """Tell whoever watches what a test's client was answered to what it had sent."""
    for watch in _watches:
        watch.look_at_answer(path, sent, body)


@contextmanager
def watching() -> Iterator[Watch]:
    """Watches for the length of the block."""
    watch, root = Watch(), logging.getLogger()
    ours = next((h for h in root.handlers if type(h).__module__ == "pipedai.logs"), None)
    watch.setFormatter(ours.formatter if ours else None)
    root.addHandler(watch)
    post_init.connect(watch.look_at_row, sender=AuditEntry)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
        post_init.disconnect(watch.look_at_row, sender=AuditEntry)
        root.removeHandler(watch)
