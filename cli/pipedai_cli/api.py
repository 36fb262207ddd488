"""Sends requests to the API, bounds its answers, and makes a sentence and an exit code of each failure."""

import json
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import Any, NoReturn

import httpx

from pipedai_cli import __version__
from pipedai_cli.output import one_line, shorten

_LONGEST = 4000


class Exit(IntEnum):
    """The exit codes. 0 is success; with `--wait`, a run that succeeded."""

    # With `--wait`: the run ended in any other way than succeeding.
    NOT_SUCCEEDED = 1
    # The command line or a file is wrong. Click uses the same number.
    USAGE = 2
    # The service can't be reached, or what answers is not the service.
    UNREACHABLE = 3
    # The service refused.
    REFUSED = 4
    # With `--wait`: the run waits until a person approves a call.
    WAITS_FOR_A_PERSON = 5


class Failure(Exception):  # noqa: N818 - it is what the user is told, and no fault of the program
    """Ends the command with this sentence on stderr, which is cut, and whose control characters are escaped."""

    def __init__(self, exit_code: Exit, sentence: str) -> None:
        super().__init__(shorten(one_line(sentence), _LONGEST))
        self.exit_code = exit_code


class Refused(Failure):
    """The API answered with an error, whose code is `code`."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(Exit.REFUSED, sentence)
        self.code = code


class Busy(Refused):
    """The API answered that it is too busy for this now. The same may be asked again after `seconds`."""

    def __init__(self, code: str, sentence: str, seconds: float) -> None:
        super().__init__(code, sentence)
        self.seconds = seconds


def wrong_usage(sentence: str) -> Failure:
    return Failure(Exit.USAGE, sentence)


BASE_PATH = "/api/v1"
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# A stream sends a comment at least every 15 s.
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
# The most seconds that a whole answer may take. The time-outs above begin anew with each byte.
LONGEST_SECONDS = 120.0
# The most bytes of an answer. Every real one is smaller: the prompts of an export come to 32 MiB.
LARGEST_ANSWER = 64 * 1024 * 1024
# The most bytes of a line of a stream. No event of a run has more.
LARGEST_LINE = 1024 * 1024
# How many rows a page of a list has.
PAGE = 200
_TRIES = 3
# For how many seconds a plan or an apply waits for those of others.
_PATIENCE = 300.0
_LONGEST_RETRY_AFTER = 30.0

Json = dict[str, Any]

# A path must consist of words and ids, because a text given as an id could otherwise lead to another endpoint.
_PATH = re.compile(r"(?:/[A-Za-z0-9-]+)+")

_HINTS = {
    "unauthenticated": "Sign in with `pipedai login`.",
    "invalid_token": "Sign in anew with `pipedai login`.",
    "token_expired": "Sign in anew with `pipedai login`.",
    "forbidden": "`pipedai whoami` shows the role of your key; `pipedai login` lets you choose a higher one.",
    "not_found": "Look at the id, and with `pipedai whoami` at the environment that your key is for.",
    "plan_stale": "Plan again.",
    "trigger_disabled": "`pipedai trigger resume` lets it run again.",
    "new_origin": "If the origin is right, `pipedai apply --accept-origin ORIGIN` lets it.",
}
_TLS_HINTS = {
    "CERTIFICATE_VERIFY_FAILED": "SSL_CERT_FILE may name a file with the certificate to trust.",
    "WRONG_VERSION_NUMBER": "It speaks no TLS: is it http:// in place of https://?",
}


def normalize_url(url: str) -> str:
    """Return the service's URL without a final slash or `/api/v1`. Raises Failure if it is none."""
    url = url.strip().rstrip("/").removesuffix(BASE_PATH)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise wrong_usage("The service's URL is not a URL.") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise wrong_usage(
            "The service's URL must begin with https:// (or http://) and name a host."
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise wrong_usage("The service's URL must have no user, query or fragment.")
    return url


class Api:
    """The API of one service, asked with one key, or with none to sign in."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = normalize_url(url)
        headers = {
            "Accept": "application/json",
            # The bytes of an answer could not be bounded if it were compressed.
            "Accept-Encoding": "identity",
            "User-Agent": f"pipedai/{__version__}",
        }
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # Redirects are not followed: they could lead the key to somebody else. Proxies and certificates of the
        # environment are used, as by other programs of a person.
        try:
            self._client = httpx.Client(
                base_url=self.url + BASE_PATH, headers=headers, timeout=TIMEOUT
            )
        except (ValueError, OSError, httpx.InvalidURL) as error:
            raise wrong_usage(
                f"The variables for proxies or SSL_CERT_FILE can't be used: {error}."
            ) from None

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        """Send the parameters that have a value, and return the answer's JSON. Raises Refused, Failure."""
        given = {name: value for name, value in params.items() if value not in (None, "")}
        return self.ask("GET", path, params=given)

    def post(self, path: str, body: Json | None = None, **options: Any) -> Any:
        return self.ask("POST", path, json=body or {}, **options)

    def send_files(self, path: str, body: Json, say: Callable[[str], None]) -> Json:
        """Plan or apply files. While others do so, wait for them and say so once, for five minutes at most."""
        ends_at, has_said = time.monotonic() + _PATIENCE, False
        while True:
            try:
                return self.post(path, body)  # type: ignore[no-any-return]
            except Busy as busy:  # noqa: PERF203 - it waits for seconds
                if time.monotonic() + busy.seconds > ends_at:
                    raise
                if not has_said:
                    say(f"Waiting: {busy}")
                has_said = True
                time.sleep(busy.seconds)

    def queue(self, path: str, body: Json | None = None) -> Json:
        """Queue a run. With the idempotency key only one run is made, even if a proxy repeats the request."""
        queued: Json = self.post(path, body, headers={"Idempotency-Key": str(uuid.uuid4())})
        return queued

    def items(self, path: str, most: int, **params: Any) -> Iterator[Json]:
        """Yield up to `most` items of a list, page after page."""
        cursor = None
        while most > 0:
            page = self.get(path, limit=min(most, PAGE), cursor=cursor, **params)
            items, cursor = page.get("items"), page.get("nextCursor")
            if not isinstance(items, list):
                self._foreign("its list has no items")
            yield from items[:most]
            most -= len(items)
            if not cursor or not items:
                return

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer's JSON, or None if the answer is empty. A GET is sent again after the seconds in
        `Retry-After` if the API is busy. Raises Refused, Failure.
        """
        _check_path(path)
        for left in reversed(range(_TRIES)):
            try:
                with self._client.stream(method, path, **options) as response:
                    body = self._body(response)
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
                raise self._unreachable(error) from None
            wait = _retry_after(response) if method == "GET" and left else None
            if wait is None:
                return self._read(response, body)
            time.sleep(wait)
        raise AssertionError

    @contextmanager
    def stream(self, path: str, after: int) -> Iterator[Iterator[tuple[str, Json]] | None]:
        """Yield the events of a stream as pairs of name and data, or None if no more events will come."""
        _check_path(path)
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        try:
            with self._client.stream(
                "GET", path, headers=headers, timeout=STREAM_TIMEOUT
            ) as response:
                if response.status_code == HTTPStatus.NO_CONTENT:
                    yield None
                elif not response.is_success:
                    self._read(response, self._body(response))
                else:
                    yield _events(self._lines(response))
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise self._unreachable(error) from None

    def _body(self, response: httpx.Response) -> bytes:
        ends_at = time.monotonic() + LONGEST_SECONDS
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > LARGEST_ANSWER:
                self._foreign(f"its answer is larger than {LARGEST_ANSWER // 1024**2} MiB")
            if time.monotonic() > ends_at:
                self._foreign(f"its answer takes longer than {LONGEST_SECONDS:.0f} s")
        return bytes(body)

    def _lines(self, response: httpx.Response) -> Iterator[str]:
        rest = b""
        for piece in response.iter_raw():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LARGEST_LINE:
                self._foreign("a line of its stream does not end")
            for line in lines:
                yield line.decode(errors="replace").rstrip("\r")

    def _read(self, response: httpx.Response, body: bytes) -> Any:
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            kind = response.headers.get("content-type", "no type").split(";")[0]
            self._foreign(f"it answered {response.status_code} with {kind} in place of JSON")
        if response.is_success:
            return answer
        if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
            self._foreign(f"it answered {response.status_code} without an error of the API")
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # This is not Refused, because the same request may succeed later.
            raise Failure(Exit.UNREACHABLE, f"{self.url} can't answer now: {_sentence(answer)}")
        refusal = str(answer.get("code")), _sentence(answer)
        if (seconds := _retry_after(response)) is not None:
            raise Busy(*refusal, seconds)
        raise Refused(*refusal)

    def _unreachable(self, error: Exception) -> Failure:
        what = str(error).rstrip(".") or type(error).__name__
        hint = next((f" {hint}" for sign, hint in _TLS_HINTS.items() if sign in what), "")
        # Parts such as `[Errno 111] ` and ` (_ssl.c:1006)` are cut, because they tell a person nothing.
        what = re.sub(r"^\[[^]]*\] | \(_ssl\.c:\d+\)", "", what)
        return Failure(Exit.UNREACHABLE, f"{self.url} can't be reached: {what}.{hint}")

    def _foreign(self, what: str) -> NoReturn:
        raise Failure(Exit.UNREACHABLE, f"{self.url} does not answer like PipedAI: {what}.")


def _check_path(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise wrong_usage("What stands for an id is none: ids have letters, digits and hyphens.")


def _sentence(answer: Json) -> str:
    """Return the sentence of an error of the API, with the wrong fields, the code, and what to do about it."""
    said = str(answer["error"]).rstrip(".")
    details = answer.get("details")
    wrong = details.get("fieldErrors") if isinstance(details, dict) else None
    if isinstance(wrong, dict) and wrong:
        fields = (f"{name}: {messages[0]}" for name, messages in wrong.items() if messages)
        said += f": {' '.join(fields)}".rstrip(".")
    code = str(answer.get("code"))
    return f"{said} ({code}). {_HINTS.get(code, '')}".strip()


def _retry_after(response: httpx.Response) -> float | None:
    if response.status_code not in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }:
        return None
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _LONGEST_RETRY_AFTER else None


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Json]]:
    """Read server-sent events. A comment is an event without name and data."""
    name, data = "message", ""
    for line in lines:
        if line.startswith(":"):
            # A comment comes at least every 15 s, so that the reader can check something else meanwhile.
            yield "", {}
        elif not line:
            if data:
                yield name, _data(data)
            name, data = "message", ""
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:") and len(data) < LARGEST_LINE:
            data += line[5:].lstrip()


def _data(text: str) -> Json:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
