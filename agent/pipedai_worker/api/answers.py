"""Turns an HTTP answer of the API into its JSON object or an exception, and repeats a request until it is answered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar

import httpx

from pipedai_worker.logs import get_logger

log = get_logger(__name__)

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


Answer = TypeVar("Answer")

# While the API does not answer, the log says so once in this time, and not at every attempt.
REMINDER_SECONDS = 300.0


class GaveUp(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The caller gave up before the API answered. The exception has the message of the last failed attempt."""


class Outage:
    """Logs that the API does not answer, logs it again now and then, and logs once when the API answers again."""

    def __init__(self) -> None:
        self._failures = 0
        self._reminded_at: float | None = None

    def failed(self, error: Unanswered) -> None:
        """Log that an attempt failed. The first failure in a row is not logged: the API may close idle connections."""
        self._failures += 1
        now = time.monotonic()
        due = self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS
        if self._failures > 1 and due:
            self._reminded_at = now
            log.warning("%s; trying again", error)

    def answered(self) -> None:
        self._failures = 0
        if self._reminded_at is not None:
            self._reminded_at = None
            log.info("the API answers again")


def until_answered(
    call: Callable[[], Answer],
    wait: Callable[[float], bool],
    *,
    again: type[Unanswered] = Unanswered,
) -> Answer:
    """Call `call` until it no longer raises `again`, and return its result. `wait(seconds)` sleeps between attempts. If
    it returns True the caller gives up, which raises GaveUp.
    """
    backoff, outage = Backoff(), Outage()
    while True:
        try:
            answer = call()
        except again as error:
            outage.failed(error)
            if wait(backoff.next_delay(error.retry_after)):
                raise GaveUp(str(error)) from None
        else:
            outage.answered()
            return answer


FIRST_SECONDS = 0.5
# The longest pause between two attempts. When an outage ends, the API gives a run up if its worker sends nothing for
# another minute, so the worker must ask sooner than that.
LONGEST_SECONDS = 15.0


class Backoff:
    """Computes the delays between the attempts of one request. Call `reset()` when an attempt has succeeded."""

    def __init__(self) -> None:
        self.attempts = 0

    def reset(self) -> None:
        self.attempts = 0

    def next_delay(self, retry_after: float | None = None) -> float:
        """Return the seconds until the next attempt: random, up to twice as long each time, at least `retry_after`."""
        bound = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.attempts, 16))
        self.attempts += 1
        return max(jittered(bound), retry_after or 0.0)


def jittered(seconds: float) -> float:
    """Return a random time from half of `seconds` to `seconds`, so that many workers do not all call at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
