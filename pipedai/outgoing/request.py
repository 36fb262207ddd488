"""Sends one request to a customer's URL, to checked addresses only and within a fixed time."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar

import httpcore
import httpx
from httpcore._backends.sync import SyncStream
from ssrfguard import SSRFGuardError
from ssrfguard.httpx import SafeBackend

from pipedai.outgoing import addresses
from pipedai.outgoing.posts import Answer

TIMEOUT_SECONDS = 10.0
KEPT_BODY_BYTES = 1024
# How much of the answer to a question of ours is read (SPEC §24).
MOST_ANSWER_BYTES = 64 * 1024

_Answers = list[Any]
T = TypeVar("T")


def post(
    url: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str],
    body: bytes,
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """Returns the answer within `timeout` seconds. It raises nothing, follows no redirect, uses no proxy, and supports
    neither cookies nor compression.
    """
    return _answer(method, url, headers, body, timeout, KEPT_BODY_BYTES)


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str],
    body: bytes = b"",
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """Does what `post` does, for an answer that is needed whole: one over MOST_ANSWER_BYTES is an error."""
    answer = _answer(method, url, headers, body, timeout, MOST_ANSWER_BYTES + 1)
    if len(answer.body or b"") > MOST_ANSWER_BYTES:
        return replace(answer, error="answer too long", body=None)
    return answer


def _answer(
    method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float, kept: int
) -> Answer:
    begun = time.monotonic()
    exchange = _Exchange(begun + timeout, kept)
    try:
        exchange.run(method, url, headers, body)
    except Exception as error:
        exchange.error = _words(error)
    return Answer(
        exchange.status_code,
        round((time.monotonic() - begun) * 1000),
        exchange.error,
        None if exchange.status_code is None else bytes(exchange.body[:kept]),
        exchange.retry_after,
        exchange.challenge,
    )


class _Exchange:
    def __init__(self, deadline: float, kept: int) -> None:
        self._deadline = deadline
        self._kept = kept
        self.challenge: str | None = None
        self.status_code: int | None = None
        self.retry_after: str | None = None
        self.body = bytearray()
        self.error: str | None = None

    def run(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        policy = addresses.policy()
        policy.check_url(url)
        parsed = httpx.URL(url)
        target = httpcore.URL(
            scheme=parsed.raw_scheme,
            host=parsed.raw_host,
            port=parsed.port,
            target=parsed.raw_path,
        )
        sent: dict[bytes | str, bytes | str] = dict(headers.items())
        sent |= {"Host": parsed.netloc.decode("ascii"), "Accept-Encoding": "identity"}
        backend = _BoundedBackend(policy=policy, deadline=self._deadline)
        with (
            httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend) as pool,
            pool.stream(method, target, headers=sent, content=body) as response,
        ):
            self.status_code = response.status
            self.retry_after = next(_values(response.headers, b"retry-after"), None)
            self.challenge = ", ".join(_values(response.headers, b"www-authenticate")) or None
            for chunk in response.iter_stream():
                self.body += chunk
                if len(self.body) >= self._kept:
                    break


class _BoundedBackend(SafeBackend):
    def __init__(self, *, policy: Any, deadline: float) -> None:
        super().__init__(policy=policy, resolver=self._resolve)
        self._deadline = deadline

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        share = _left(self._deadline, httpcore.ConnectTimeout) / (addresses.CONNECTION_ATTEMPTS + 1)
        stream = super().connect_tcp(host, port, timeout=share)
        return _BoundedStream(stream.get_extra_info("socket"), self._deadline)

    def _resolve(self, host: str, port: int, *args: Any) -> _Answers:
        """Returns the addresses of a host. `getaddrinfo` has no timeout, so the wait is a third of the time left."""
        share = _left(self._deadline, httpcore.ConnectTimeout) / (addresses.CONNECTION_ATTEMPTS + 1)
        found = look_up_within(share, host, port, *args)
        if not addresses.may_use_port(port, [ip_address(answer[4][0]) for answer in found]):
            raise _PortNotAllowed
        return found


class _BoundedStream(SyncStream):
    """A connection whose every operation, also of TLS, ends at the deadline, even if bytes keep arriving slowly."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__(sock)
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return super().read(max_bytes, _left(self._deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        sent = memoryview(buffer)
        while sent:
            self._sock.settimeout(_left(self._deadline, httpcore.WriteTimeout))
            try:
                sent = sent[self._sock.send(sent) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout from error
            except OSError as error:
                raise httpcore.WriteError from error

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, httpcore.ConnectTimeout)
        secured = super().start_tls(ssl_context, server_hostname, left)
        return _BoundedStream(secured.get_extra_info("socket"), self._deadline)


class _PortNotAllowed(Exception):  # noqa: N818
    """The port is neither 80 nor 443, and the address is not in WEBHOOK_ALLOWED_NETWORKS."""


def look_up(host: str, port: int, *args: Any) -> Iterable[Any]:
    """Calls `socket.getaddrinfo`. Tests replace this function to resolve their own names."""
    return socket.getaddrinfo(host, port, *args)


def look_up_within(seconds: float, *args: Any) -> _Answers:
    return within(seconds, lambda: list(look_up(*args)))


def within(seconds: float, look: Callable[[], T]) -> T:
    """Calls `look` in a thread of its own, and returns or raises what it does. Raises TimeoutError after `seconds`; the
    thread then goes on, because nothing can stop it.
    """
    answer: queue.SimpleQueue[tuple[T] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((look(),))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=run, name="name-look-up", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("the name was not found in time") from None
    if isinstance(found, Exception):
        raise found
    return found[0]


def _left(deadline: float, late: type[Exception]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late
    return left


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Returns a TLS context that verifies certificates and reads no environment variables."""
    return httpx.create_ssl_context(trust_env=False)


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for key, value in headers if key.lower() == name)


def _words(error: Exception) -> str:
    """Returns a description of a request's failure in our own words. The error's own message may contain addresses."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, words in _WORDS:
        if any(isinstance(cause, kind) for cause in causes):
            return words
    return "request failed"


_Kinds = type[BaseException] | tuple[type[BaseException], ...]

# The words for each kind of error. The first kind in this list that fits the error, or an error that caused it, gives
# the words, so precise kinds come first.
_WORDS: tuple[tuple[_Kinds, str], ...] = (
    (_PortNotAllowed, "port not allowed (WEBHOOK_ALLOWED_NETWORKS)"),
    (SSRFGuardError, "address not allowed (WEBHOOK_ALLOWED_NETWORKS)"),
    ((httpcore.TimeoutException, TimeoutError), "timed out"),
    (socket.gaierror, "name not found"),
    (ssl.SSLError, "TLS failed"),
    (httpcore.ConnectError, "could not connect"),
    ((httpcore.NetworkError, ConnectionError), "connection lost"),
    (httpcore.RemoteProtocolError, "not an HTTP answer"),
    ((httpx.InvalidURL, ValueError), "not a URL"),
)
