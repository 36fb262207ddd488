"""Sends one message to a customer's URL: signs it, checks the address, limits the time, and reads the answer.

All webhooks are signed here, by `X-Pipedai-Signature` and the Standard Webhooks specification.
"""

import base64
import hmac
import json
import queue
import socket
import ssl
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_network,
)
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import httpcore
import httpx
import psutil
from django.conf import settings
from httpcore._backends.sync import SyncStream
from ssrfguard import (
    DEFAULT_DENIED,
    AddressTable,
    Block,
    BlockedAddressError,
    Policy,
    Reach,
    SSRFGuardError,
)
from ssrfguard.httpx import SafeBackend

from pipedai.api.outside_urls import MAX_HOST, check_url

_STANDARD_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Post:
    """A request. Its URL, headers and body may hold secrets, so they are not in its `repr`."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


def host_of(url: str) -> str:
    """Returns the host in a URL, by which senders limit requests, or "". It never raises an error, because a bad URL
    that older rules accepted must not keep a run from ending.
    """
    try:
        return (urlsplit(url).hostname or "")[:MAX_HOST]
    except ValueError:
        return ""


def signed_post(url: str, *, message_id: str, body: str, secret: str | None, now: datetime) -> Post:
    """Returns a request with signatures by `secret`, or without any if it is None. `now` is when it is sent."""
    sent = body.encode()
    signed = webhook_headers(message_id=message_id, body=sent, secret=secret, now=now)
    headers = {"Content-Type": "application/json", "User-Agent": "PipedAI-Webhooks/1", **signed}
    return Post(url, sent, headers)


def webhook_headers(
    *, message_id: str, body: bytes, secret: str | None, now: datetime
) -> dict[str, str]:
    """Returns the headers with a message's id, time and, with a secret, signatures."""
    timestamp = str(int(now.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    if secret is None:
        return headers
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(standard_key(secret), signed, "sha256")).decode()
    return {
        **headers,
        "webhook-signature": f"v1,{signature}",
        "X-Pipedai-Signature": f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}",
    }


def standard_key(secret: str) -> bytes:
    """Returns the key in a secret. In a secret `whsec_…` the rest is the key in base64; ValueError is raised if it is
    not. The bytes of any other secret are the key.
    """
    if secret.startswith(_STANDARD_PREFIX):
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    return secret.encode()


class Result(StrEnum):
    # The receiver has taken the message.
    TAKEN = "taken"
    # The receiver refuses the message. Sending it again would change nothing.
    REFUSED = "refused"
    # The receiver may take the message later. The message is given up after a number of such answers.
    AGAIN = "again"
    # The service's own mail server can't be reached, or refuses the service itself. This says nothing about the
    # message, so the message waits for the server.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request over HTTP. `error` says in a few words, without an address, why no complete answer came,
    or is None; `status_code` may be set beside it. `body` is the beginning of the answer, or all of it: the function
    that asked says which. `challenge` has all headers WWW-Authenticate, as one list (RFC 9110 §5.3).
    """

    status_code: int | None
    duration_ms: int
    error: str | None = None
    # It may hold a token, so it is not in the `repr`.
    body: bytes | None = field(default=None, repr=False)
    retry_after: str | None = None
    challenge: str | None = None

    @property
    def json_object(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object in UTF-8, or None."""
        try:
            value = json.loads((self.body or b"").decode())
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def result(self) -> Result:
        code = self.status_code
        if self.error is not None or code is None:
            return Result.AGAIN
        if 200 <= code < 300:
            return Result.TAKEN
        return Result.AGAIN if code == 429 or code >= 500 else Result.REFUSED


@dataclass(frozen=True, slots=True)
class OwnAnswer(Answer):
    """An answer from a mail server, or from our code if it could not make the message, with its result given."""

    means: Result = Result.AGAIN

    @property
    def result(self) -> Result:
        return self.means


IPAddress = IPv4Address | IPv6Address

PORTS = frozenset({80, 443})
_MORE_DENIED = (
    # Azure's service for data about each machine, at a public address. Webhooks must not read it.
    "168.63.129.16/32",
    # IPv6 addresses that contain an IPv4 address in the form of SIIT (RFC 7915). They could hide a forbidden IPv4
    # address.
    "::ffff:0:0:0/96",
)
# The most addresses of a name to which a request tries to connect. Each try may take the whole time-out of a
# connection.
CONNECTION_ATTEMPTS = 2

# For how many seconds this machine's own addresses are remembered. Reading them takes a tenth of a request's CPU time.
_KNOWN_SECONDS = 10
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_LOOPBACK_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6", "ip6-localhost"}
    | {"ip6-loopback", "localhost4", "localhost4.localdomain4"}
)
# Characters that IDNA, the standard for names in Unicode, reads as dots.
_DOTS = str.maketrans({"。": ".", "．": ".", "｡": "."})


def policy(*, anywhere: bool = False) -> Policy:
    """Returns the rules for addresses. Requests may go to the public internet and to the networks in the settings, but
    not to this machine. Only requests to servers that the operator has named may go `anywhere`.
    """
    allowed = _EVERYWHERE if anywhere else tuple(settings.WEBHOOK_ALLOWED_NETWORKS)
    age = int(time.monotonic() // _KNOWN_SECONDS)
    return _policy(allowed, _own_addresses(psutil.net_if_addrs, age))


def may_use_port(port: int, addresses: Iterable[IPAddress], *, anywhere: bool = False) -> bool:
    if port in PORTS:
        return True
    allowed = policy(anywhere=anywhere).allowed_networks
    return all(any(address in network for network in allowed) for address in addresses)


def target_problem(url: str, *, anywhere: bool = False) -> str | None:
    """Returns None if a request may be sent to the URL, or a sentence on what is wrong with it. In production it must
    have https. With `anywhere` its address and port may be any.
    """
    problem = check_url(url, https_only=settings.PRODUCTION)
    if problem or anywhere:
        return problem
    if names_forbidden_address(url):
        return (
            "Must not name a private or reserved address that is not in WEBHOOK_ALLOWED_NETWORKS."
        )
    if names_forbidden_port(url):
        return "Its port must be 80 or 443, unless WEBHOOK_ALLOWED_NETWORKS has its address."
    return None


def names_forbidden_port(url: str) -> bool:
    """Whether the URL's port is forbidden. Host names are not resolved here. While WEBHOOK_ALLOWED_NETWORKS names a
    network, the host's address may be in it, so the URL of a host name may have any port.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _named_address(parts.hostname or "")
    if address is None:
        return port not in PORTS and not policy().allowed_networks
    return not may_use_port(port, [address])


def names_forbidden_address(url: str) -> bool:
    """Whether the URL's host is a forbidden address, in any notation. A name is checked when a request connects."""
    address = _named_address(urlsplit(url).hostname or "")
    try:
        if address is not None:
            policy().check_address(address)
    except BlockedAddressError:
        return True
    return False


def _named_address(host: str) -> IPAddress | None:
    """Returns the address that `host` denotes, or None: this machine's if `host` is its name, IPv6 with or without a
    zone, or IPv4 in one to four decimal, octal or hexadecimal parts, as inet_aton(3) reads it.
    """
    folded = unicodedata.normalize("NFKC", unquote(host)).translate(_DOTS)
    # Characters of the Unicode category Cf are invisible, and resolvers drop them from a name, so they are dropped
    # before the check too.
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    host = visible.lower().rstrip(".")
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):  # `inet_aton` can't read this host.
        return None


@lru_cache(maxsize=8)
def _policy(allowed: tuple[str, ...], own: frozenset[str]) -> Policy:
    denied = [
        Block(ip_network(address), "This machine or its cloud", "-", Reach.DENIED)
        for address in (*_MORE_DENIED, *sorted(own))
    ]
    return Policy(
        denied_networks=AddressTable((*DEFAULT_DENIED.blocks, *denied)),
        allowed_networks=tuple(ip_network(text, strict=False) for text in allowed),
        # The library ssrfguard can't allow ports for some networks only. If the settings allow any network, ssrfguard
        # is told to allow all ports. `may_use_port` then refuses ports other than 80 and 443 outside the allowed
        # networks.
        allowed_ports=frozenset(range(1, 65536)) if allowed else PORTS,
        max_connection_attempts=CONNECTION_ATTEMPTS,
    )


@lru_cache(maxsize=1)
def _own_addresses(read: Callable[[], Mapping[str, Any]], _age: int) -> frozenset[str]:
    """Returns the public addresses of this machine, where our servers listen. They are read anew for each `_age`."""
    return frozenset(
        address.address
        for addresses in read().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
        and ip_address(address.address.partition("%")[0]).is_global
    )


TIMEOUT_SECONDS = 10.0
KEPT_BODY_BYTES = 1024

_Answers = list[Any]
T = TypeVar("T")


def post(
    url: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str],
    body: bytes,
    timeout: float = TIMEOUT_SECONDS,
    kept: int = KEPT_BODY_BYTES,
    anywhere: bool = False,
) -> Answer:
    """Returns the answer within `timeout` seconds, with the first `kept` bytes of its body. It raises nothing, follows
    no redirect, uses no proxy, and supports neither cookies nor compression. With `anywhere`, the operator has named
    the server, which may have any address.
    """
    begun = time.monotonic()
    answer, received = Answer(None, 0), bytearray()
    try:
        with _exchange(method, url, headers, body, begun + timeout, anywhere) as response:
            answer = Answer(
                response.status,
                0,
                retry_after=next(_values(response.headers, b"retry-after"), None),
                challenge=", ".join(_values(response.headers, b"www-authenticate")) or None,
            )
            for chunk in response.iter_stream():
                received += chunk
                if len(received) >= kept:
                    break
    except Exception as error:
        answer = replace(answer, error=_words(error))
    took = round((time.monotonic() - begun) * 1000)
    came = None if answer.status_code is None else bytes(received[:kept])
    return replace(answer, duration_ms=took, body=came)


@contextmanager
def _exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    deadline: float,
    anywhere: bool,
) -> Iterator[httpcore.Response]:
    allowed = policy(anywhere=anywhere)
    allowed.check_url(url)
    parsed = httpx.URL(url)
    target = httpcore.URL(
        scheme=parsed.raw_scheme,
        host=parsed.raw_host,
        port=parsed.port,
        target=parsed.raw_path,
    )
    sent: dict[bytes | str, bytes | str] = dict(headers.items())
    sent |= {"Host": parsed.netloc.decode("ascii"), "Accept-Encoding": "identity"}
    backend = _BoundedBackend(allowed, deadline, anywhere=anywhere)
    with (
        httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend) as pool,
        pool.stream(method, target, headers=sent, content=body) as response,
    ):
        yield response


class _BoundedBackend(SafeBackend):
    def __init__(self, policy: Any, deadline: float, *, anywhere: bool) -> None:
        super().__init__(policy=policy, resolver=self._resolve)
        self._deadline = deadline
        self._anywhere = anywhere

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        share = _left(self._deadline, httpcore.ConnectTimeout) / (CONNECTION_ATTEMPTS + 1)
        stream = super().connect_tcp(host, port, timeout=share)
        return _BoundedStream(stream.get_extra_info("socket"), self._deadline)

    def _resolve(self, host: str, port: int, *args: Any) -> _Answers:
        """Returns the addresses of a host. `getaddrinfo` has no time-out, so it gets a third of the time left."""
        share = _left(self._deadline, httpcore.ConnectTimeout) / (CONNECTION_ATTEMPTS + 1)
        found = look_up_within(share, host, port, *args)
        addresses = [ip_address(answer[4][0]) for answer in found]
        if not may_use_port(port, addresses, anywhere=self._anywhere):
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
    """Calls `look` in a thread of its own, and returns its result or raises its error. Raises TimeoutError after
    `seconds`; the thread then goes on, because nothing can stop it.
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


# Returns a TLS context that verifies certificates and reads no environment variables.
_tls = lru_cache(maxsize=1)(partial(httpx.create_ssl_context, trust_env=False))


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Iterator[str]:
    return (value.decode("latin-1") for key, value in headers if key.lower() == name)


def _words(error: Exception) -> str:
    """Describes a request's failure in our own words, because the error's own message may contain addresses."""
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
