"""Tells what a signed request is about: the event's type, the sender's id of it, and by what it is known again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipedai.api.parsers import replace_unstorable
from triggers.states import Scheme

_WEEK, _YEAR = 7, 365


@dataclass(frozen=True, slots=True)
class Identity:
    """`type` and `given_id` are as the sender names them, or None. `key` is the SHA-256 by which the event is known
    again for `key_days` days, or None if nothing that the sender vouches for tells one event from another.
    """

    type: str | None
    given_id: str | None
    key: bytes | None
    key_days: int


def identity_of(
    scheme: str,
    *,
    options: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    body: bytes,
    document: Any,
) -> Identity:
    """Returns the identity of a request whose signature holds. `document` is its body, parsed."""
    members = document if isinstance(document, dict) else {}
    match scheme:
        case Scheme.GITHUB:
            # GitHub signs the body alone, so whoever sees one delivery can send it again under any other id.
            delivery = headers.get("x-github-delivery")
            return _identity(headers.get("x-github-event"), delivery, body, _YEAR)
        case Scheme.GITLAB:
            given = headers.get("idempotency-key")
            return _identity(headers.get("x-gitlab-event"), given, given, _WEEK)
        case Scheme.STANDARD:
            given = headers.get("webhook-id")
            return _identity(members.get("type"), given, given, _WEEK)
        case Scheme.SLACK:
            inner = members.get("event")
            of_inner = inner.get("type") if isinstance(inner, dict) else None
            given = members.get("event_id")
            return _identity(of_inner or members.get("type"), given, given, _WEEK)
        case Scheme.STRIPE:
            given = members.get("id")
            return _identity(members.get("type"), given, given, _WEEK)
        case Scheme.BEARER:
            given = headers.get("idempotency-key")
            return _identity(members.get("type"), given, given, _WEEK)
    stamp = (options or {}).get("timestampHeader")
    if stamp is None:
        return _identity(members.get("type"), None, body, _YEAR)
    signed = headers.get(stamp, "").encode("latin-1", "replace") + b"." + body
    return _identity(members.get("type"), None, signed, _WEEK)


def _identity(kind: Any, given: Any, key: Any, days: int) -> Identity:
    """Takes members of the body as they are; those that are no text with something in it count as absent."""
    if isinstance(key, str):
        key = key.encode(errors="replace")
    digest = hashlib.sha256(key).digest() if isinstance(key, bytes) and key else None
    return Identity(_text(kind, 200), _text(given, 255), digest, days)


def _text(value: Any, most: int) -> str | None:
    return replace_unstorable(value)[:most] if isinstance(value, str) and value else None
