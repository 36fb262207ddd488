"""Takes secrets and control characters out of text and data before anyone stores or prints them."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

REDACTED = "[redacted]"

# Data is redacted down to this depth. No event and no audit row is deeper, and the limit ends a structure that contains
# itself.
_MAX_DEPTH = 8

# A value is secret if its name contains a match. Case, `_` and `-` of the name are ignored. Counts such as
# `inputTokens` and `monthTokenSpendUsd` don't match.
_SECRET_NAME = re.compile(
    r"passw(?:or)?d|passphrase|secret|credential|authorization|cookie|apikey|privatekey|masterkey"
    r"|mcpheader|sealed|jwt|databaseurl|(?:device|user)code|token(?!s|spend)"
)
_NAME_PART = (
    r"(?:passw(?:or)?d|passphrase|secret|credential|authorization|cookie|api[-_]?key|private[-_]?key"
    r"|master[-_]?key|mcp[-_]?headers|jwt|database[-_]?url|(?:device|user)[-_]?code|token(?!s|spend))"
)
_NAME = rf"(?<![\w-])[\w-]{{0,40}}?{_NAME_PART}[\w-]{{0,40}}"

# The patterns of secrets in a text, in the order in which they are applied. A match is replaced except for its first
# group. Repetitions are bounded, or can't start again at each character, so that no text takes quadratic time.
_PATTERNS = (
    # A secret name in quotes and its value, as JSON and Python write them: "token": "…", ('cookie', b'…').
    re.compile(
        rf"""(["']{_NAME}["']\s*[:,]\s*)"""
        r"""(?:b?"(?:[^"\\]|\\.)*(?:"|\Z)|b?'(?:[^'\\]|\\.)*(?:'|\Z)|\{[^{}]*\}|\[[^\[\]]*\]"""
        r"""|(?!true\b|false\b|null\b|True\b|False\b|None\b)[^\s,}\])]+)""",
        re.IGNORECASE,
    ),
    # A header with a secret, whose value ends with the line.
    re.compile(
        r"""(\b(?:proxy-)?authorization\s*[:=]\s*+|\b(?:set-)?cookie\s*[:=]\s*+)"""
        r"""(?!\[redacted\])[^\r\n"']+""",
        re.IGNORECASE,
    ),
    # A secret written as name=value, as in query strings, connection strings and reprs.
    re.compile(
        rf"""({_NAME}=)(?!\[redacted\])"""
        r"""(?:b?"(?:[^"\\]|\\.)*(?:"|\Z)|b?'(?:[^'\\]|\\.)*(?:'|\Z)"""
        r"""|\{[^{}]*\}|(?!True\b|False\b|None\b|true\b|false\b)[^\s,;&"'(){}\[\]]+)""",
        re.IGNORECASE,
    ),
    # One of the service's tokens, whole or cut off, also URL-encoded.
    re.compile(r"((?:pwk|wrk|wkt|hos|enr)(?:_|%5F))[0-9A-Za-z]{6,}", re.IGNORECASE),
    # A JWT, which may be cut off after the first dot.
    re.compile(r"()eyJ[\w-]{8,1024}+(?:\.[\w-]*){1,4}"),
    re.compile(r"(\bbearer\s+)(?!\[redacted\])[\w.~+/=-]{12,}", re.IGNORECASE),
    # The password in a URL.
    re.compile(
        r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s:/?#@\"']{0,256}:)(?!\[redacted\]@)[^\s/\"']+(?=@)",
        re.IGNORECASE,
    ),
    # The values of a row, which PostgreSQL quotes in the detail of an error about a constraint.
    re.compile(r"(Failing row contains \()(?!\[redacted\])[^\r\n]+", re.IGNORECASE),
)

# A quick test, because most texts hold no secret: a text without a match of this pattern matches none of _PATTERNS. A
# colon alone is no match, because a pattern that wants a colon also wants quotes or the name of a header before it.
_MAY_MATCH = re.compile(
    r"""[="']|(?:authorization|cookie)\s*:|://|eyJ|(?:pwk|wrk|wkt|hos|enr)[_%]|bearer|Failing row""",
    re.IGNORECASE,
)

# Every match of _MAY_MATCH has one of these strings in lower case. To look for them takes a tenth of the time that a
# search for _MAY_MATCH takes.
_PARTS = (
    *("=", '"', "'", "://", "authorization", "cookie", "eyj", "bearer", "failing row"),
    *("pwk", "wrk", "wkt", "hos", "enr"),
)

# Characters that could fake a log line or control a terminal: C0 and C1 control characters, DEL, line and paragraph
# separators, bidirectional overrides, lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# The same characters except tabs and line ends.
_CONTROL_IN_LINES = re.compile(
    "(?!\r\n)" + _CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f")
)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name.lower().replace("_", "").replace("-", "")) is not None


def redact_text(text: str) -> str:
    # Most texts of audit rows are ids and states. Each match of a pattern contains a character that is neither a
    # letter, a digit nor a hyphen, so such a text matches none.
    if text.replace("-", "").isalnum():
        return text
    lowered = text.lower()
    if not any(part in lowered for part in _PARTS) or _MAY_MATCH.search(text) is None:
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


def escape_control(text: str, *, keep_lines: bool = False) -> str:
    """Returns the text with control characters escaped, so that it can't fake log lines. With `keep_lines` tabs and
    line ends stay, for tracebacks and for texts that are not printed as one line.
    """
    if text.isascii() and text.isprintable():
        return text
    pattern = _CONTROL_IN_LINES if keep_lines else _CONTROL
    return pattern.sub(
        lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text
    )


@lru_cache(maxsize=1024)
def redact_name(name: str) -> str:
    return escape_control(redact_text(name))


def redact(value: Any, *, depth: int = 0, keep_lines: bool = False) -> Any:
    """Returns the value as JSON types without secrets, and with control characters escaped as by `escape_control`.
    Secrets are found by their names, or in texts by their patterns.
    """
    # The most frequent types come first, by a test that is faster than isinstance.
    kind = type(value)
    if kind is str:
        return escape_control(redact_text(value), keep_lines=keep_lines)
    if kind is UUID:
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return escape_control(redact_text(value), keep_lines=keep_lines)
    if isinstance(value, bytes | bytearray):
        return escape_control(redact_text(value.decode("utf-8", "backslashreplace")))
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            redact_name(_text(key)): redact_named(
                _text(key), item, depth=depth + 1, keep_lines=keep_lines
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return _redact_items(value, depth=depth + 1, keep_lines=keep_lines)
    return escape_control(redact_text(_text(value)))


def redact_named(name: str, value: Any, *, depth: int = 0, keep_lines: bool = False) -> Any:
    """Returns the value redacted. If its name is that of a secret, only null and booleans are shown."""
    if value is None or isinstance(value, bool):
        return value
    return REDACTED if is_secret_name(name) else redact(value, depth=depth, keep_lines=keep_lines)


def _redact_items(items: Iterable[Any], *, depth: int, keep_lines: bool) -> list[Any]:
    if isinstance(items, tuple) and len(items) == 2 and isinstance(items[0], str | bytes):
        # ASGI and httpx write a header as a pair of name and value. If the name is secret, the value is the secret. A
        # list is no such pair, unless it is in a list: audit rows have the old and the new name of a thing as a list.
        name, secret = items
        if is_secret_name(_text(name)):
            return [redact(name, depth=depth), redact_named(_text(name), secret, depth=depth)]
    items = (tuple(item) if isinstance(item, list) else item for item in items)
    return [redact(item, depth=depth, keep_lines=keep_lines) for item in items]


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("latin-1")
    try:
        return str(value)
    except Exception:  # A broken __str__ must not prevent the log line.
        return f"<{type(value).__name__}>"
