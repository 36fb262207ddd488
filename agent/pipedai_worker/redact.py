"""Replaces secrets in text, which are a run's header values, by `[redacted]`, and writes the worker's log without them.

It finds a value, the part after an authentication scheme, and the user and password of `Basic`; each also escaped as
JSON, percent-encoded and in base64. It finds the service's own tokens by their form. It does not find other encodings,
or a part of a value in the middle of a text.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, quote_plus

from pipedai_worker.values import Change, shortened, with_strings

MARK = "[redacted]"
# Matches any token of the service: a prefix, 43 characters and a checksum of 6.
_SERVICE_TOKEN = r"(?:pwk|wrk|wkt|hos|enr)_[0-9A-Za-z]{20,60}"  # noqa: S105 - a pattern
_LONGEST_SERVICE_TOKEN = 64
# Matches a part of such a token at the end of a text, from the token's first character on.
_BEGUN_SERVICE_TOKEN = re.compile(
    r"(?:(?:pwk|wrk|wkt|hos|enr)_[0-9A-Za-z]{0,59}|pwk|pw|p|wrk|wr|wkt|wk|w|hos|ho|h|enr|en|e)\Z"
)
# Parts of a header value are only treated as secrets from this length on, because shorter ones occur in ordinary words.
_SHORTEST_DERIVED = 6
# Some JSON encoders escape these characters too, so that the JSON can stand in HTML.
_HTML_SAFE_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[ \t]+(\S.*)", re.DOTALL)


class Redactor:
    """Finds and replaces secrets. Redacting a text a second time changes nothing."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Find these secrets from now on, instead of those before. One thread may call this while others redact."""
        forms = {form for secret in secrets for form in _forms(secret)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        # The text `[redacted]` is tried first, as a secret such as `act` would otherwise be replaced inside it. Forms
        # with one first character are a group, so that `re` need not try thousands of forms at each character.
        groups: dict[str, list[str]] = {}
        for form in (MARK, *ordered):
            groups.setdefault(form[0], []).append(re.escape(form))
        parts = [f"(?:{'|'.join(group)})" for group in groups.values()]
        self._pattern = re.compile("|".join([*parts, _SERVICE_TOKEN]))
        self.longest = max([_LONGEST_SERVICE_TOKEN, *map(len, ordered)])
        self._alphabetical = sorted([*ordered, MARK])

    def redact(self, text: str) -> str:
        return self._pattern.sub(MARK, text)

    def redact_cut_off(self, text: str) -> str:
        """Return `text` with every secret replaced, even one at its end whose last characters were cut off."""
        text = self.redact(text)
        start = self.begun_at(text, shortest=_SHORTEST_DERIVED)
        return text if start == len(text) else text[:start] + MARK

    def begun_at(self, text: str, position: int = 0, *, shortest: int = 1) -> int:
        """Return where a secret begins that goes on after the end of `text`, or the length of `text`. It must begin at
        `position` or later, and have `shortest` characters in the text. `[redacted]` counts as a secret.
        """
        position = max(position, len(text) - self.longest)
        token = _BEGUN_SERVICE_TOKEN.search(text, position)
        for start in range(position, len(text) - shortest + 1):
            if self._goes_on(text[start:]) or (token is not None and start == token.start()):
                return start
        return len(text)

    def _goes_on(self, beginning: str) -> bool:
        # All forms that begin with this text stand together in the alphabetical list, and the text itself would be the
        # first of them. `hide` may replace the list during the search, so the search reads it only once.
        forms = self._alphabetical
        index = bisect_left(forms, beginning)
        if index < len(forms) and forms[index] == beginning:
            index += 1
        return index < len(forms) and forms[index].startswith(beginning)

    def redact_json(self, value: Any, redact_string: Change | None = None) -> Any:
        """Return the JSON redacted, or a mark if that is no JSON any more. Raises RecursionError if it is too deep."""
        clean = with_strings(value, redact_string or self.redact, self.redact)
        text = json.dumps(clean, ensure_ascii=False)
        # The JSON text is redacted as a whole too, because a secret may also be a number or extend over several values.
        whole = self.redact(text)
        if whole == text:
            return clean
        try:
            return json.loads(whole)
        except ValueError:
            return {"redacted": True}

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        return self._pattern.finditer(text)


class RedactingStream:
    """Redacts a text that comes in pieces, and also finds a secret that begins in one piece and ends in the next."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece of text, and return the redacted text up to where a secret might still be incomplete."""
        held = self._held + text
        # From this position on, the text may be the beginning of a secret. A secret that begins before it is complete.
        sure = self._redactor.begun_at(held)
        done = []
        position = 0
        for match in self._redactor.matches(held):
            if match.start() >= sure:
                break
            done += [held[position : match.start()], MARK]
            position = match.end()
            if position > sure:
                sure = self._redactor.begun_at(held, position)
        done.append(held[position:sure])
        self._held = held[sure:]
        return "".join(done)

    def finish(self, *, cut_off: bool) -> str:
        """Return the rest of the text, redacted. `cut_off` says that the text may end in the middle of a secret."""
        rest, self._held = self._held, ""
        return self._redactor.redact_cut_off(rest) if cut_off else self._redactor.redact(rest)


class RedactingTexts:
    """Redacts texts one by one, and finds a secret that goes on in a later text. No text is held back. A part of a
    secret at a text's end is therefore replaced only if it has 6 characters; the rest, in the next text, always is.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # The end of the earlier texts, with its secrets.
        self._before = ""

    def next(self, text: str, room: int = sys.maxsize) -> str:
        if not text:
            return ""
        # The rest is not needed: `room` characters are returned, and a secret that begins there ends in `seen`.
        seen = text[: room + self._redactor.longest]
        joined, border = self._before + seen, len(self._before)
        done = []
        position = 0
        for match in self._redactor.matches(joined):
            if match.end() > border:
                done += [joined[max(position, border) : match.start()], MARK]
            position = match.end()
        begun = self._redactor.begun_at(joined, position, shortest=_SHORTEST_DERIVED)
        done.append(joined[max(position, border) : begun])
        if begun < len(joined):
            done.append(MARK)
        whole = joined if len(seen) == len(text) else text
        self._before = whole[-self._redactor.longest :]
        return "".join(done)[:room]


def _forms(value: str) -> Iterator[str]:
    value = value.strip()
    if not value:
        return
    yield value
    yield from _encodings(value)
    scheme = _SCHEME.fullmatch(value)
    if scheme is None:
        return
    credentials = scheme.group(1)
    for piece in (credentials, *_basic_credentials(credentials)):
        if len(piece) >= _SHORTEST_DERIVED:
            yield piece
            yield from _encodings(piece)


def _basic_credentials(credentials: str) -> Iterator[str]:
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except ValueError:
        return
    if ":" in decoded:
        yield decoded
        yield decoded.partition(":")[2]


def _encodings(value: str) -> Iterator[str]:
    for escaped in {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
        for once in (escaped, escaped.replace("/", "\\/"), escaped.translate(_HTML_SAFE_JSON)):
            yield once
            yield json.dumps(once)[1:-1]
    for encoded in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield encoded
        yield _PERCENT.sub(lambda match: match.group().lower(), encoded)
    if len(value) >= _SHORTEST_DERIVED:
        yield from _base64_forms(value.encode())


def _base64_forms(value: bytes) -> Iterator[str]:
    """Yield the three forms that `value` has within longer base64, one for each position in a group of three bytes."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value).decode().rstrip("=")
        first = (0, 2, 3)[offset]
        last = len(encoded) - (1 if (offset + len(value)) % 3 else 0)
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _KnownSecrets:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[str, tuple[str, ...]] = {}
        self._redactor = Redactor()

    def add(self, run_id: str, secrets: Iterable[str], *, instead: bool = False) -> None:
        """Hide a run's secrets. With `instead` they replace its earlier ones; if it has none, nothing is done."""
        with self._lock:
            if not instead or run_id in self._by_run:
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


# A line of the log has at most this many characters of a message, because a tool may answer with a megabyte.
LONGEST_MESSAGE = 16 * 1024


class LogFormatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        # Secrets are replaced before the message is cut, as the cut could leave a part of one.
        message = shortened(known_secrets.redact(message), LONGEST_MESSAGE)
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


def configure_log(*, as_json: bool = False) -> None:
    """Send the worker's log lines to stderr; with `as_json`, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(as_json=as_json))
    root = logging.getLogger("pipedai_worker")
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
