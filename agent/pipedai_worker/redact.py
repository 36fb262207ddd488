"""Replaces secrets in text by `[redacted]`, in each of the forms in which programs usually print them.

The secrets are a run's header values. For each value these are found: the value itself; the part after an
authentication scheme (`x` in `Bearer x`); the user and password that `Basic` encodes; and each of these escaped as JSON
(once or twice), percent-encoded, or in base64, even within longer base64. The service's own tokens are found by their
form. Not found are other encodings (hex, gzip), a value with other text in its middle, and a part of a value, unless
the part stands at the end of a text, or the text before has the part that comes before it.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from pipedai_worker.values import Change, with_strings

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
    """Finds and replaces one set of secrets. Redacting a text a second time changes nothing."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        self._forms = ordered = sorted(forms, key=lambda form: (-len(form), form))
        # The pattern tries the text `[redacted]` first. Otherwise a secret that is a part of that text, such as `act`,
        # would be replaced inside it.
        parts = [re.escape(MARK), *map(re.escape, ordered), _SERVICE_TOKEN]
        self._pattern = re.compile("|".join(parts))
        self.longest = max([_LONGEST_SERVICE_TOKEN, *map(len, ordered)])
        self._alphabetical = sorted([*forms, MARK])

    def redact(self, text: str) -> str:
        return self._pattern.sub(MARK, text)

    def redact_cut_off(self, text: str) -> str:
        """Return `text` with every secret replaced, even one at its end whose last characters were cut off."""
        text = self.redact(text)
        start = self.begun_at(text, shortest=_SHORTEST_DERIVED)
        return text if start == len(text) else text[:start] + MARK

    def begun_at(self, text: str, position: int = 0, *, shortest: int = 1) -> int:
        """Return where a secret begins that goes on after the end of `text`, or the length of `text`.

        Only a secret that begins at `position` or later counts, and only if `text` has `shortest` characters of it or
        more. The text `[redacted]` counts as a secret too, because it must not be taken apart.
        """
        position = max(position, len(text) - self.longest)
        token = _BEGUN_SERVICE_TOKEN.search(text, position)
        for start in range(position, len(text) - shortest + 1):
            if self._goes_on(text[start:]) or (token is not None and start == token.start()):
                return start
        return len(text)

    def _goes_on(self, beginning: str) -> bool:
        """Tell whether a secret is longer than `beginning` and begins with it."""
        # All forms that begin with this text stand together in the alphabetical list, and the text itself would be the
        # first of them.
        index = bisect_left(self._alphabetical, beginning)
        if index < len(self._alphabetical) and self._alphabetical[index] == beginning:
            index += 1
        return index < len(self._alphabetical) and self._alphabetical[index].startswith(beginning)

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
    """Redacts texts that are passed on one by one, and also finds a secret that begins in one and ends in a later one.

    A text is never held back. A part of a secret at its end is therefore replaced as soon as it has 6 characters, and
    the rest of the secret at the beginning of the next text is replaced in any case.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # The end of the texts before, with its secrets.
        self._before = ""

    def next(self, text: str, room: int = sys.maxsize) -> str:
        """Return the text after its secrets are replaced, or the first `room` characters of it."""
        if not text:
            return ""
        # What comes after these characters can't be returned, and no secret that begins before `room` ends later.
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
