"""Turns an HTTP answer of the API into its JSON object, or raises an exception that says what went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import httpx

# After one of these statuses the worker sends the request again. Every other 4xx is final.
TRANSIENT_STATUSES = frozenset({408, 425, 429})
# A 400 answer lists what is wrong with single fields. An error message repeats this many characters of that at most.
LONGEST_DETAILS = 1000

# The worker waits no longer than this, even if a server asks for more.
LONGEST_RETRY_AFTER_SECONDS = 3600.0

# Codes of error answers, as API.md lists them.
UNAUTHENTICATED = "unauthenticated"
HOST_NOT_ALLOWED = "host_not_allowed"
NOT_FOUND = "not_found"


class ApiError(Exception):
    """A request to the API failed. The exception's message never holds a token."""


class Unanswered(ApiError):  # noqa: N818
    def __init__(
        self, message: str, *, retry_after: float | None = None, sent: bool = True
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.sent = sent


class Unavailable(Unanswered):
    """The API can't be reached, or its answer (such as 503) asks to try again."""


class NotOurApi(Unanswered):
    """Something that is not the PipedAI API answered. The URL may be wrong, or a proxy sent a page of its own."""


class TokenRefused(ApiError):  # noqa: N818
    """The API answered 401, and trying again would not help. `arrived` is false if the API got no token at all."""

    def __init__(self, message: str, *, arrived: bool = True) -> None:
        super().__init__(message)
        self.arrived = arrived


class Refused(ApiError):  # noqa: N818
    """The API answered 4xx, and would do so again. `code` is its error code, or None, and `body` the whole answer."""

    def __init__(
        self,
        message: str,
        status: int,
        code: str | None = None,
        body: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = body

    @property
    def is_unfit(self) -> bool:
        return self.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}


def read(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a successful answer, or raise the exception for its status."""
    status = response.status_code
    body = _json_object(response)
    if body is not None and response.is_success:
        return body
    message = body.get("error") if body else None
    if status >= 500 or status in TRANSIENT_STATUSES:
        raise Unavailable(
            f"The API answered {status}: {message or response.reason_phrase}",
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
        )
    if not isinstance(message, str) or not 400 <= status < 500:
        kind = response.headers.get("Content-Type", "no content type").split(";")[0]
        target = f" to {response.headers['Location']}" if response.has_redirect_location else ""
        raise NotOurApi(
            f"{response.url} does not answer like the PipedAI API: {status}{target}, {kind}."
        )
    code = (body or {}).get("code")
    code = code if isinstance(code, str) else None
    if code == HOST_NOT_ALLOWED:
        raise NotOurApi(f"The API at {response.url} is not meant to be called by this host name.")
    if status == 401:
        arrived = code != UNAUTHENTICATED
        lost = " No token arrived there: a proxy may remove the Authorization header."
        raise TokenRefused(message if arrived else message + lost, arrived=arrived)
    raise Refused(message + _details(body), status, code, body or {})


def _details(body: Any) -> str:
    details = body.get("details")
    fields = details.get("fieldErrors") if isinstance(details, dict) else None
    if not isinstance(fields, dict):
        return ""
    text = "; ".join(
        f"{name}: {' '.join(map(str, errors))}"
        for name, errors in fields.items()
        if isinstance(errors, list)
    )
    return f" ({text[:LONGEST_DETAILS]})" if text else ""


def _json_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def parse_time(moment: object) -> float | None:
    """Convert a time in the API's format to seconds since 1970. Return None if it is not a time."""
    if not isinstance(moment, str):
        return None
    try:
        return _since_1970(datetime.fromisoformat(moment.replace("Z", "+00:00")))
    except ValueError:
        return None


def parse_date(header: str | None) -> float | None:
    """Convert a `Date` header to seconds since 1970. Return None if it does not hold a time."""
    try:
        return _since_1970(parsedate_to_datetime(header or ""))
    except (TypeError, ValueError, OverflowError):
        return None


def _since_1970(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110: a number or a date), or None."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    elif (date := parse_date(value)) is not None:
        seconds = date - time.time()
    else:
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all exceptions that caused it, also those inside groups of exceptions."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
