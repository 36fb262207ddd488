"""Calls the API, one method for each request, within bounds of size and time, and repeats what got no answer."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import httpx

from pipedai_worker import __version__
from pipedai_worker.running.stopping import in_background, run_in_background
from pipedai_worker.values import parse_time, since_1970

log = logging.getLogger(__name__)

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
    try:
        found = response.json()
    except (ValueError, RecursionError):
        found = None
    body: dict[str, Any] | None = found if isinstance(found, dict) else None
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


def parse_date(header: str | None) -> float | None:
    """Convert a `Date` header to seconds since 1970. Return None if it does not hold a time."""
    try:
        return since_1970(parsedate_to_datetime(header or ""))
    except (TypeError, ValueError, OverflowError):
        return None


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
        self._backoff = Backoff()
        self._reminded_at: float | None = None

    def failed(self, error: Unanswered) -> float:
        """Log that an attempt failed, and return the seconds until the next. The first failure in a row is not logged:
        the API may close idle connections.
        """
        now = time.monotonic()
        due = self._reminded_at is None or now - self._reminded_at >= REMINDER_SECONDS
        if self._backoff.attempts and due:
            self._reminded_at = now
            log.warning("%s; trying again", error)
        return self._backoff.next_delay(error.retry_after)

    def answered(self) -> None:
        self._backoff.reset()
        if self._reminded_at is not None:
            self._reminded_at = None
            log.info("the API answers again")


def until_answered(
    call: Callable[[], Answer],
    wait: Callable[[float], bool],
    *,
    again: type[Unanswered] = Unanswered,
) -> Answer:
    """Call `call` until it does not raise `again`. Raises GaveUp when `wait(seconds)`, which sleeps, returns True."""
    outage = Outage()
    while True:
        try:
            answer = call()
        except again as error:
            if wait(outage.failed(error)):
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


BASE_PATH = "/api/v1"
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# The API may hold a poll back for `wait` seconds. The request times out this many seconds later.
POLL_MARGIN_SECONDS = 15.0
# The account goes into a header, because a poll has no body and proxies write URLs to their logs.
ACCOUNT_HEADER = "X-Pipedai-Account-Id"
# When the worker ends, it waits at most this many seconds until the API has taken its sign-off.
SIGN_OFF_SECONDS = 1.5
LARGEST_PORT = 65535
# If this machine's clock differs by more from the API's, the worker asks a person to set it.
CLOCK_TOLERANCE_SECONDS = 60.0


class Bounds(NamedTuple):
    """The most seconds that a request may take with its answer, and the most bytes of the answer's body."""

    seconds: float = 60.0
    largest: int = 2 * 1024 * 1024


ANSWER = Bounds()
# The API answers 4 MiB at most, unless a single run is larger: its prompt and payload.
PAGE = Bounds(largest=8 * 1024 * 1024)


def normalize_url(url: str) -> str:
    """Return a URL that a person has pasted, without a final `/api/v1` or slash. Raises ValueError if it is no URL."""
    url = url.strip().rstrip("/").removesuffix(BASE_PATH)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("The API's URL is not a URL.") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("The API's URL must begin with https:// (or http://) and name a host.")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("The API's URL must have no user, query or fragment.")
    if parsed.port is not None and not 1 <= parsed.port <= LARGEST_PORT:
        raise ValueError("The API's URL names a port that there can't be.")
    return url


class Api:
    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        worker_id: str = "",
        proxy: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Make the client. Raises ValueError for a bad URL or proxy, OSError for a bad `ca_file`."""
        self.url = normalize_url(url)
        self.token = token
        self._worker = f"/workers/{worker_id}"
        headers = {
            "Accept": "application/json",
            # The bytes of an answer could not be bounded if it were compressed.
            "Accept-Encoding": "identity",
            "User-Agent": f"pipedai-worker/{__version__}",
            "X-Pipedai-Worker-Version": __version__,
            # By this id the API ignores a sign-off if another process of this worker has polled since.
            "X-Pipedai-Worker-Process": uuid4().hex,
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # The certificates are read only for https, as that takes longer than requests. Redirects are not followed.
        is_https = httpx.URL(self.url).scheme == "https"
        trusted = ssl.create_default_context(cafile=ca_file) if ca_file else is_https
        try:
            # httpx then ignores the environment's proxies, netrc files and certificates, which could divert the token.
            self._client = httpx.AsyncClient(
                base_url=self.url + BASE_PATH,
                headers=headers,
                timeout=TIMEOUT,
                trust_env=False,
                verify=trusted,
                proxy=proxy,
            )
        except (httpx.InvalidURL, ValueError):
            raise ValueError("The proxy must be a URL such as http://proxy.example:3128.") from None
        except ImportError:
            raise ValueError(
                "A SOCKS proxy needs one more package: pip install 'httpx[socks]'."
            ) from None
        self._loop = _event_loop()
        self._way = f"{self.url} through the proxy" if proxy else self.url
        # True after the first successful request below this worker's own URL.
        self._proven = False
        # How claude is paid for, as the last poll's answer said; None if it said nothing.
        self.auth_mode: str | None = None
        # For how many more seconds a usage limit keeps runs from this worker, by the last poll's answer; None if there
        # is no limit.
        self.limited_seconds: float | None = None
        # The runs named in the last poll that have ended, so that their sessions need not be kept.
        self.ended_runs: list[str] = []
        # By how many seconds the server's clock is ahead of this machine's. None until an answer has told its time.
        self.clock_offset: float | None = None
        # The same for the monotonic clock, which goes on evenly when somebody sets the machine's clock.
        self._ahead: float | None = None

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result()

    def health(self) -> None:
        sent_at = time.time()
        response = self._send("GET", "/health")
        try:
            read(response)
        except Refused as refused:
            raise NotOurApi(f"There is no PipedAI API at {self.url}: {refused}.") from None
        if self.clock_offset is None:
            # The `Date` header has only whole seconds, so it is not used once a poll has brought the server's time.
            self._learn_clock(parse_date(response.headers.get("Date")), time.time() - sent_at)

    def register(self, body: dict[str, Any]) -> dict[str, Any]:
        """Exchange a `wrk_` token for a registration. The token works only once."""
        try:
            answer = self._request("POST", "/workers/register", json=body)
        except Refused as refused:
            if refused.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                raise
            raise NotOurApi(f"There is no PipedAI API at {self.url}: {refused}.") from None
        for name in ("workerId", "workerToken", "workspaceId"):
            if not isinstance(answer.get(name), str):
                raise NotOurApi(f"The answer to a registration has no {name}.")
        return answer

    def whoami(self) -> dict[str, Any]:
        """Return what the API says of the token's owner. It does not count as a poll."""
        return self._request("GET", "/whoami")

    def environment_id(self) -> str | None:
        found = self.whoami().get("environmentId")
        return found if isinstance(found, str) else None

    def claim_next(
        self,
        claim_id: str,
        wait: float,
        account_id: str | None = None,
        features: Sequence[str] = (),
        waiting_runs: Sequence[str] = (),
        problems: Sequence[dict[str, str]] | None = None,
    ) -> dict[str, Any] | None:
        """Take and start the next due run, waiting up to `wait` seconds for one; return None if there is none. The same
        `claim_id` gives the same run again, in case an answer is lost. `account_id` is the HMAC that names claude's
        account, `features` names what not every worker can do, `waiting_runs` the runs for whose sessions this worker
        keeps room, and `problems` what is wrong with this machine; None says that nothing changed.
        """
        sent_at = time.time()
        answer = self._ask(
            "POST",
            "claim-next",
            json={
                "claimId": claim_id,
                "start": True,
                "wait": int(wait),
                **({"features": list(features)} if features else {}),
                **({"waitingRuns": list(waiting_runs)} if waiting_runs else {}),
                **({} if problems is None else {"problems": list(problems)}),
            },
            timeout=httpx.Timeout(wait + POLL_MARGIN_SECONDS, connect=10.0),
            headers={ACCOUNT_HEADER: account_id} if account_id else {},
            bounds=PAGE._replace(seconds=wait + PAGE.seconds),
        )
        run = answer.get("run", ())
        if run is not None and not isinstance(run, dict):
            raise NotOurApi("The answer to a claim of the next run has no run.")
        # The server writes `serverTime` at the moment when it answers, after it has held the call back. Most of the
        # request's duration is therefore not travel time. The travel time is taken to be one second at most.
        self._learn_clock(parse_time(answer.get("serverTime")), min(time.time() - sent_at, 1.0))
        mode = answer.get("authMode")
        self.auth_mode = mode if isinstance(mode, str) else None
        self.limited_seconds = self.seconds_until(answer.get("limitedUntil"))
        ended = answer.get("endedRuns")
        self.ended_runs = [run for run in waiting_runs if isinstance(ended, list) and run in ended]
        return run

    def end_wait(self, features: Sequence[str] = ()) -> None:
        """Send a newer poll, because the API then answers the `claim-next` of this worker that still waits."""
        named = {"features": ",".join(features)} if features else {}
        self._ask("GET", "poll", params={"wait": "1", **named}, bounds=PAGE)

    def sign_off(self) -> None:
        """Tell the API, once, that this process polls no more; its answer does not matter. Raises Unavailable."""
        self._send(
            "POST",
            f"{self._worker}/sign-off",
            timeout=SIGN_OFF_SECONDS,
            bounds=ANSWER._replace(seconds=SIGN_OFF_SECONDS),
        )

    def heartbeat(
        self, run_id: str, tool_calls: dict[str, int] | None = None, session_id: str | None = None
    ) -> dict[str, Any]:
        """Renew the run's lease. The answer has `status`, `cancelRequested` and `leaseExpiresAt`."""
        body = {"toolCalls": tool_calls, "sessionId": session_id}
        known = {name: value for name, value in body.items() if value is not None}
        return self._ask("POST", f"runs/{run_id}/heartbeat", json=known)

    def credentials(self, run_id: str, refused_expires_at: object) -> dict[str, Any]:
        """Return the trigger's present `headers` for its `mcpUrl`, in place of those that the server refused."""
        told = {"refusedExpiresAt": refused_expires_at} if refused_expires_at else {}
        return self._ask("POST", f"runs/{run_id}/credentials", json=told)

    def complete(self, run_id: str, outcome: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", f"runs/{run_id}/complete", json=outcome)

    def spend(self, run_id: str, approval_id: str) -> None:
        """Use up a person's approval of one call. The API confirms it once, and refuses a repetition with 409."""
        self._ask("POST", f"runs/{run_id}/approvals/{approval_id}/spend", json={})

    def tell_events(self, run_id: str, body: bytes) -> dict[str, Any]:
        """Send events, as the JSON `{"events": [...]}`. It is safe to repeat. The answer has the expected `nextSeq`."""
        headers = {"Content-Type": "application/json"}
        return self._ask("POST", f"runs/{run_id}/events", content=body, headers=headers)

    def seconds_until(self, moment: object) -> float | None:
        """Return the seconds from the server's current time to `moment`. Return None if `moment` is not a time."""
        parsed = parse_time(moment)
        if parsed is None:
            return None
        return parsed - (time.time() if self._ahead is None else time.monotonic() + self._ahead)

    def _learn_clock(self, server_time: float | None, trip: float) -> None:
        if server_time is not None:
            self.clock_offset = server_time - (time.time() - trip / 2)
            self._ahead = server_time - (time.monotonic() - trip / 2)

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request to a URL that begins with this worker's own, /workers/:id."""
        try:
            answer = self._request(method, f"{self._worker}/{path}", **options)
        except Refused as refused:
            is_unknown = refused.status == HTTPStatus.NOT_FOUND and refused.code != NOT_FOUND
            if is_unknown and not self._proven:
                # A 404 without the API's own code may come from another service at this URL. Unless the health check
                # finds the PipedAI API there, it raises NotOurApi or Unavailable.
                self.health()
            raise
        self._proven = True
        return answer

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return read(self._send(method, path, **options))

    def _send(
        self, method: str, path: str, *, bounds: Bounds = ANSWER, **options: Any
    ) -> httpx.Response:
        """Send a request and return its answer. Raises Unavailable, also if the answer exceeds its bounds."""
        asked = asyncio.wait_for(self._read(bounds, method, path, **options), bounds.seconds)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except asyncio.TimeoutError:
            raise self._unavailable(httpx.ReadTimeout("it took too long to answer")) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(error) from None

    async def _read(self, bounds: Bounds, *asked: Any, **options: Any) -> httpx.Response:
        async with self._client.stream(*asked, **options) as answer:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise httpx.RemoteProtocolError("it compressed its answer, although it must not")
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > bounds.largest:
                    raise httpx.RemoteProtocolError(
                        f"its answer is larger than {bounds.largest // 1024} KiB"
                    )
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=bytes(body), request=answer.request
        )

    def _unavailable(self, error: Exception) -> Unavailable:
        what = _reason(error)
        # httpx keeps only the text of an error of `ssl`, so the text is searched.
        is_certificate = "CERTIFICATE_VERIFY_FAILED" in what
        hint = "; --ca-file names a certificate to trust" if is_certificate else ""
        sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        return Unavailable(f"{self._way} can't be reached: {what}{hint}", sent=sent)


def _reason(error: Exception) -> str:
    for cause in causes(error):
        # httpx says only that all attempts failed, and asyncio gives the number of the error without its meaning.
        told_well = isinstance(cause, (ssl.SSLError, socket.gaierror))
        if isinstance(cause, OSError) and cause.errno and not told_well:
            return os.strerror(cause.errno)
    return str(error).rstrip(".") or type(error).__name__


class _EventLoop(asyncio.SelectorEventLoop):
    """An event loop whose look-ups of names do not keep the process alive, as those of asyncio do."""

    async def getaddrinfo(self, *asked: Any, **options: Any) -> Any:
        return await in_background("look-up", partial(socket.getaddrinfo, *asked, **options))


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all requests, in a thread. Only requests in a loop can be given up at any moment."""
    loop = _EventLoop()
    run_in_background("api", loop.run_forever)
    return loop


def clock_complaint(ahead: float | None) -> str | None:
    """Return a sentence if the API's clock is `ahead` of ours, or behind, by more than a minute, else None."""
    if ahead is None or abs(ahead) <= CLOCK_TOLERANCE_SECONDS:
        return None
    direction = "behind" if ahead > 0 else "ahead of"
    return f"this machine's clock is {abs(ahead):.0f} s {direction} the API's"
