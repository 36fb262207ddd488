"""Replaces secrets by `[redacted]` in text: header values in the spellings they come back in.

Covered, for each header value: the value as it is; what follows an authentication scheme
(`Bearer x`); the user and password inside `Basic`; each of these escaped as JSON (also inside
another JSON string), percent-encoded, and in base64, also amid longer base64. Tokens of the service
itself are found by their form. Not covered: other encodings (hex, gzip), a value broken up by other
text, a part of one.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MARK = "[redacted]"
# The service's own tokens, wherever they come from: a prefix, 43 characters and a checksum of 6.
_SERVICE_TOKEN = r"(?:pwk|wrk|wkt|hos|enr)_[0-9A-Za-z]{20,60}"  # noqa: S105 - a pattern
_LONGEST_SERVICE_TOKEN = 64
# A shorter piece of a value would match half the words of a text.
_SHORTEST_DERIVED = 6
# Some JSON encoders escape these as well.
_HTML_SAFE_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[ \t]+(\S.*)", re.DOTALL)


class Redactor:
    """Knows one set of secrets. Idempotent: its own mark is left alone."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = ordered = sorted(forms, key=lambda form: (-len(form), form))
        # The mark comes first, so that a secret that is part of it does not make it grow.
        parts = [re.escape(MARK), *map(re.escape, ordered), _SERVICE_TOKEN]
        self._pattern = re.compile("|".join(parts))
        self.longest = max([_LONGEST_SERVICE_TOKEN, *map(len, ordered)])

    def redact(self, text: str) -> str:
        """`text` with every secret replaced."""
        return self._pattern.sub(MARK, text)

    def redact_cut_off(self, text: str) -> str:
        """`redact()` for a text that may end amid a secret."""
        text = self.redact(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _SHORTEST_DERIVED - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + MARK
        return text

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Where the secrets are."""
        return self._pattern.finditer(text)


class RedactingStream:
    """Redacts text that comes in pieces: a secret that lies across a border is found too."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, text: str) -> str:
        """The next piece in, and out what is sure by now."""
        held = self._held + text
        # A secret that begins before this point lies wholly in what is held.
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
        """What was still held back; `cut_off` says that it may end amid a secret."""
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
    """The characters of base64 that the value alone decides, for each of its three alignments."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value).decode().rstrip("=")
        first = (0, 2, 3)[offset]
        last = len(encoded) - (1 if (offset + len(value)) % 3 else 0)
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")
