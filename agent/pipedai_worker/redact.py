"""Replaces secrets in text by `[redacted]`, in each of the forms in which programs usually print them.

The secrets are a run's header values. For each value these are found: the value itself; the part after an
authentication scheme (`x` in `Bearer x`); the user and password that `Basic` encodes; and each of these escaped as JSON
(once or twice), percent-encoded, or in base64, even within longer base64. The service's own tokens are found by their
form. Not found are other encodings (hex, gzip), a value with other text in its middle, and a part of a value.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from pipedai_worker.json_values import Change, with_strings

MARK = "[redacted]"
# Matches any token of the service: a prefix, 43 characters and a checksum of 6.
_SERVICE_TOKEN = r"(?:pwk|wrk|wkt|hos|enr)_[0-9A-Za-z]{20,60}"  # noqa: S105 - a pattern
_LONGEST_SERVICE_TOKEN = 64
# Parts of a header value are only treated as secrets from this length on, because shorter ones occur in ordinary words.
_SHORTEST_DERIVED = 6
# Some JSON encoders escape these characters too, so that the JSON can stand in HTML.
_HTML_SAFE_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[ \t]+(\S.*)", re.DOTALL)


class Redactor:
    """Finds and replaces one set of secrets. Redacting a text a second time changes nothing."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = ordered = sorted(forms, key=lambda form: (-len(form), form))
        # The pattern tries the text `[redacted]` first. Otherwise a secret that is a part of that text, such as `act`,
        # would be replaced inside it.
        parts = [re.escape(MARK), *map(re.escape, ordered), _SERVICE_TOKEN]
        self._pattern = re.compile("|".join(parts))
        self.longest = max([_LONGEST_SERVICE_TOKEN, *map(len, ordered)])

    def redact(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        return self._pattern.sub(MARK, text)

    def redact_cut_off(self, text: str) -> str:
        """Return `text` with every secret replaced, even one at its end whose last characters were cut off."""
        text = self.redact(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _SHORTEST_DERIVED - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + MARK
        return text

    def redact_json(self, value: Any, redact_string: Change | None = None) -> Any:
        """Return the JSON value with every secret replaced, or `{"redacted": true}` if it then is no JSON any more.

        `redact_string` redacts the strings; by default `redact` does. `redact` always does the names in objects. Raises
        RecursionError if the value is nested too deep.
        """
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
        """Find the secrets in `text`, and the places where `[redacted]` stands already."""
        return self._pattern.finditer(text)


class RedactingStream:
    """Redacts a text that comes in pieces, and also finds a secret that begins in one piece and ends in the next."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece of text, and return the redacted text up to where a secret might still be incomplete."""
        held = self._held + text
        # No secret is longer than `longest`. A secret that begins before this position is therefore complete in the
        # text held so far.
        sure = len(held) - self._redactor.longest
        done = []
        position = 0
        for match in self._redactor.matches(held):
            if match.start() >= sure:
                break
            done += [held[position : match.start()], MARK]
            position = match.end()
        end = max(position, sure)
        done.append(held[position:end])
        self._held = held[end:]
        return "".join(done)

    def finish(self, *, cut_off: bool) -> str:
        """Return the rest of the text, redacted. `cut_off` says that the text may end in the middle of a secret."""
        rest, self._held = self._held, ""
        return self._redactor.redact_cut_off(rest) if cut_off else self._redactor.redact(rest)


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
    """Yield the forms that `value` can take within longer base64 text.

    Base64 encodes three bytes at a time, so there are three forms, one for each position at which the value can begin.
    Characters at the ends that depend on the neighbouring bytes are left out.
    """
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value).decode().rstrip("=")
        first = (0, 2, 3)[offset]
        last = len(encoded) - (1 if (offset + len(value)) % 3 else 0)
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")
