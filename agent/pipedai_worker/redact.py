"""Replaces secrets in text by `[redacted]`, in every spelling in which a program may print them.

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
# Tokens of the service, whoever they belong to: a prefix, 43 characters and a checksum of 6.
_SERVICE_TOKEN = r"(?:pwk|wrk|wkt|hos|enr)_[0-9A-Za-z]{20,60}"  # noqa: S105 - a pattern
_LONGEST_SERVICE_TOKEN = 64
# A shorter part of a value would occur in many ordinary words.
_SHORTEST_DERIVED = 6
# Some JSON encoders escape these as well.
_HTML_SAFE_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[ \t]+(\S.*)", re.DOTALL)


class Redactor:
    """Knows one set of secrets. Text that is redacted already stays the same when it is redacted again."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = ordered = sorted(forms, key=lambda form: (-len(form), form))
        # The mark is the first alternative, so that a secret that is part of the mark does not match inside it.
        parts = [re.escape(MARK), *map(re.escape, ordered), _SERVICE_TOKEN]
        self._pattern = re.compile("|".join(parts))
        self.longest = max([_LONGEST_SERVICE_TOKEN, *map(len, ordered)])

    def redact(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        return self._pattern.sub(MARK, text)

    def redact_cut_off(self, text: str) -> str:
        """Do the same as `redact()`, and replace the beginning of a secret at the text's end too."""
        text = self.redact(text)
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _SHORTEST_DERIVED - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length] + MARK
        return text

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Find the secrets in `text`, and the marks."""
        return self._pattern.finditer(text)


class RedactingStream:
    """Redacts text that comes in pieces, and finds a secret that lies in two of them."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece, and return the text that no later piece can make part of a secret."""
        held = self._held + text
        # No secret is longer than `longest`, so one that begins before this point has ended by now.
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
        """Return the text still held back. `cut_off` tells that it may end in the middle of a secret."""
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
    """Yield the base64 of the value without the characters that depend on the bytes around it.

    Base64 encodes three bytes at a time, so the value has three forms, depending on where it begins.
    """
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value).decode().rstrip("=")
        first = (0, 2, 3)[offset]
        last = len(encoded) - (1 if (offset + len(value)) % 3 else 0)
        core = encoded[first:last]
        yield core
        yield core.replace("+", "-").replace("/", "_")
