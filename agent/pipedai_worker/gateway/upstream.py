"""Sends requests to a run's MCP server, with the trigger's headers, by the machine's proxy and without redirects, and
reads the answers within bounds of size and time. The API renews the headers before they expire, or when the server
refuses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import httpx

from pipedai_worker.api import ApiError, Backoff
from pipedai_worker.gateway import faults, limits
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.redact import Redactor
from pipedai_worker.running.stopping import in_background

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """The headers that show an MCP server who sends a request."""

    headers: Mapping[str, str] = field(repr=False)
    # When they expire, by this machine's monotonic clock; None if they do not.
    expire_at: float | None = None


# Returns the present credentials. Its argument says whether the server has refused the earlier ones. It is called in a
# thread of its own, and may raise any exception.
Ask = Callable[[bool], Credentials]


class Renewal:
    """Asks for the credentials of one gateway, in whose event loop it lives. The API takes one request in 5 s."""

    def __init__(self, given: Credentials, ask: Ask, use: Callable[[Credentials], None]) -> None:
        """`use` gets each answer of `ask`, and raises ServerFailed for headers that can't be sent."""
        self.expire_at = given.expire_at
        self._ask = ask
        self._use = use
        self._asking: asyncio.Future[Credentials] | None = None
        self._answered_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff()

    def open(self) -> None:
        self._plan(0.0)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def ask(self) -> None:
        """Ask for the current credentials after a server has refused ours, and wait RENEWAL_SECONDS at most for them.

        Credentials that came within the last RENEWAL_PAUSE seconds are current, so nothing is asked then.
        """
        last = self._answered_at
        came_now = last is not None and time.monotonic() - last < limits.RENEWAL_PAUSE
        if self._asking is not None or not came_now:
            await asyncio.wait(
                [self._asking or self._begin(refused=True)], timeout=limits.RENEWAL_SECONDS
            )

    def _begin(self, *, refused: bool = False) -> asyncio.Future[Credentials]:
        self.close()
        self._asking = asking = in_background("credentials", partial(self._ask, refused))
        asking.add_done_callback(self._answered)
        return asking

    def _answered(self, asking: asyncio.Future[Credentials]) -> None:
        self._asking = None
        self._answered_at = time.monotonic()
        pause = limits.RENEWAL_PAUSE
        error = asking.exception()
        if error is None:
            try:
                self._use(asking.result())
            except ServerFailed as failed:
                error = failed
        if error is None:
            self.expire_at = asking.result().expire_at
            self._backoff.reset()
        else:
            if not self._backoff.attempts:
                # The text of another exception may quote a header.
                told = isinstance(error, (ApiError, ServerFailed))
                what = str(error) if told else type(error).__name__
                log.warning("the MCP server's headers can't be renewed yet: %s", what)
            pause = max(pause, self._backoff.next_delay(getattr(error, "retry_after", None)))
        self._plan(pause)

    def _plan(self, pause: float) -> None:
        """Ask again shortly before the credentials expire, but after `pause` seconds at the earliest."""
        if self.expire_at is None:
            return
        left = self.expire_at - time.monotonic()
        delay = max(pause, left - min(limits.RENEWED_BEFORE, left / 2))
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)


# Headers about a single connection (RFC 9110 §7.6.1), or how a message is sent on it, are never forwarded.
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("content-length", "expect"),
    }
)
# A trigger must not set these headers: MCP itself uses them, or (accept-encoding) the gateway, which asks for answers
# without compression because it reads them.
OF_THE_PROTOCOL = frozenset(
    {
        *("accept", "accept-encoding", "content-type", "last-event-id"),
        *("mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"),
    }
)
# A client's headers about the client itself, or meant for the gateway alone, are not forwarded.
NOT_FORWARDED = HOP_BY_HOP | {"host", "authorization", "cookie", "origin", "accept-encoding"}
_HOST = re.compile(r"[0-9A-Za-z._:-]+")
LARGEST_PORT = 65535
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

Headers = list[tuple[bytes, bytes]]


class Upstream:
    """The client of one MCP server. If the trigger's URL or headers can't be used, each request raises ServerFailed."""

    def __init__(self, url: str, credentials: Credentials, ask: Ask) -> None:
        self._fault: ServerFailed | None = None
        self._headers: Headers = []
        # The values of all headers so far, even replaced ones, but no short values, which ordinary texts have.
        self._secrets: set[str] = set()
        self._redactor = Redactor()
        self.url = httpx.URL("http://invalid.invalid/")
        self._client: httpx.AsyncClient | None = None
        self._renewal = Renewal(credentials, ask, self._use)
        try:
            self.url = _parse(url)
            self._use(credentials)
        except ServerFailed as failed:
            self._fault = failed

    @property
    def headers_expire(self) -> bool:
        return self._renewal.expire_at is not None

    def _use(self, credentials: Credentials) -> None:
        self._headers = _sendable(credentials.headers)
        self._secrets.update(value for value in credentials.headers.values() if len(value) >= 8)
        self._redactor.hide(self._secrets)

    def open(self) -> None:
        if self._fault is None:
            try:
                self._client = _client(self.url)
                self._renewal.open()
            except ServerFailed as failed:
                self._fault = failed

    async def close(self) -> None:
        self._renewal.close()
        if self._client is not None:
            await self._client.aclose()

    def holds_secret(self, text: str) -> bool:
        """Tell whether a text has a secret in it, in any form that the redactor knows."""
        return self._redactor.redact(text) != text

    @contextlib.asynccontextmanager
    async def send(
        self,
        method: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None = None,
        *,
        seconds: float | None = limits.ANSWER_SECONDS,
    ) -> AsyncIterator[httpx.Response]:
        """Yield the answer before its body is read. The whole answer must come within `seconds`. A request that the
        server answers with 401 is sent once more if the API then has other headers. Raises ServerFailed.
        """
        if self._fault is not None:
            raise self._fault
        if self._client is None:
            raise faults.infra("The gateway is closed.")
        asked = (method, headers, body)
        ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        used = self._headers
        answer = await self._send_once(self._client, ends_at, *asked)
        try:
            if answer.status_code == faults.UNAUTHORIZED:
                # If the headers have not been replaced since this request was sent, the API is asked for new ones.
                if self._headers == used:
                    await self._renewal.ask()
                if self._headers != used:
                    await answer.aclose()
                    answer = await self._send_once(self._client, ends_at, *asked)
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise faults.client(
                    "The MCP server compressed its answer, although the worker takes none compressed."
                )
            yield answer
        finally:
            await answer.aclose()

    async def _send_once(
        self,
        client: httpx.AsyncClient,
        ends_at: float | None,
        method: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(
            None,
            connect=limits.CONNECT_SECONDS,
            write=limits.SEND_SECONDS,
            pool=limits.CONNECT_SECONDS,
        )
        try:
            request = httpx.Request(
                method,
                self.url,
                headers=self._merged(headers, body),
                content=body,
                extensions={"timeout": timeout.as_dict()},
            )
            answer = await within(ends_at, client.send(request, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise faults.of_error(error) from None
        answer.extensions[ENDS_AT] = ends_at
        return answer

    def _merged(self, headers: Iterable[tuple[str, str]], body: bytes | None) -> Headers:
        merged = list(self._headers)
        own = {name.lower() for name, _ in merged}
        if b"host" not in own:
            merged.insert(0, (b"Host", self.url.netloc))
        merged.append((b"Accept-Encoding", b"identity"))
        if body is not None:
            merged.append((b"Content-Length", b"%d" % len(body)))
        for name, value in headers:
            small = name.lower()
            if small not in NOT_FORWARDED and small.encode() not in own:
                merged.append((name.encode("latin-1"), value.encode("latin-1")))
        return merged


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise faults.client("The trigger's MCP URL is no URL.") from None
    host = parsed.raw_host.decode("latin-1").strip("[]")
    if parsed.scheme not in {"http", "https"} or not host:
        raise faults.client(
            "The trigger's MCP URL must begin with https:// or http:// and name a host."
        )
    if not _HOST.fullmatch(host) or (parsed.port or 0) > LARGEST_PORT:
        raise faults.client("The trigger's MCP URL names a host or a port that there can't be.")
    if parsed.userinfo:
        raise faults.client("The trigger's MCP URL must have no user name or password.")
    return parsed.copy_with(fragment=None)


def _sendable(headers: Mapping[str, str]) -> Headers:
    """Return the trigger's headers as bytes. The last of a name counts. Headers that it must not set are left out."""
    made: dict[bytes, tuple[bytes, bytes]] = {}
    for name, value in headers.items():
        pair = (name.encode(), value.strip(" \t").encode())
        if not _NAME.fullmatch(pair[0]) or not _VALUE.fullmatch(pair[1]):
            raise faults.client(
                "One of the trigger's MCP headers has characters that HTTP does not allow."
            )
        if name.lower() not in HOP_BY_HOP | OF_THE_PROTOCOL:
            made[pair[0].lower()] = pair
    return list(made.values())


def _client(url: httpx.URL) -> httpx.AsyncClient:
    try:
        transport = httpx.AsyncHTTPTransport(
            # The certificates are read only for https, because reading them takes longer than a call.
            verify=_trusted() if url.scheme == "https" else False,
            limits=httpx.Limits(
                max_connections=limits.MOST_CONNECTIONS,
                max_keepalive_connections=8,
                keepalive_expiry=limits.IDLE_SECONDS,
            ),
            proxy=_proxy(url),
            socket_options=_socket_options(),
        )
    except (ValueError, httpx.InvalidURL, ImportError):
        raise faults.infra("The worker's proxy for the MCP server can't be used.") from None
    except OSError:
        raise faults.infra("The worker's certificates can't be read.") from None
    return httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that this machine's environment names for the URL, as claude would choose it; None for none."""
    host = f"{url.host}:{url.port}" if url.port else url.host
    if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]
        return None
    proxies = urllib.request.getproxies_environment()
    return proxies.get(url.scheme) or proxies.get("all") or None


def _trusted() -> ssl.SSLContext:
    """Return the certificates to trust: those of httpx or of SSL_CERT_FILE, and those of NODE_EXTRA_CA_CERTS."""
    trusted = httpx.create_ssl_context(trust_env=True)
    extra = os.environ.get("NODE_EXTRA_CA_CERTS")
    if extra:
        # Claude, too, goes on without these certificates when it can't read the file.
        with contextlib.suppress(OSError):
            trusted.load_verify_locations(cafile=extra)
    return trusted


def _socket_options() -> list[tuple[int, int, int]]:
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name, value in (
        ("TCP_KEEPIDLE", limits.KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", limits.KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", limits.KEEPALIVE_COUNT),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


_SESSION_ID = re.compile(r"[!-~]+")

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
SESSION, VERSION = "mcp-session-id", "mcp-protocol-version"
# The extension of an httpx answer with the time by which it must have come whole (event loop's clock); None: no limit.
ENDS_AT = "pipedai_ends_at"

Came = TypeVar("Came")


async def within(ends_at: float | None, coming: Awaitable[Came]) -> Came:
    """Return what comes from the MCP server. Raises ServerFailed if it has not come by `ends_at`."""
    seconds = None if ends_at is None else ends_at - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(coming, seconds)
    except asyncio.TimeoutError:
        raise faults.infra("The MCP server took too long to answer.", unanswered=True) from None


async def chunks_of(response: httpx.Response) -> AsyncIterator[bytes]:
    chunks = response.aiter_raw()
    try:
        while True:
            yield await within(response.extensions[ENDS_AT], chunks.__anext__())
    except StopAsyncIteration:
        return
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise faults.of_error(error) from None


async def events_of(
    response: httpx.Response,
    largest: int = limits.LARGEST_EVENT,
    too_large: str = f"The MCP server sent an event of more than {limits.LARGEST_EVENT // limits.MIB} MiB.",
) -> AsyncIterator[Event]:
    """Yield the events of an answer. Raises ServerFailed, with the sentence `too_large` for one over `largest`."""
    splitter = EventSplitter(largest)
    try:
        async for chunk in chunks_of(response):
            for event in splitter.feed(chunk):
                yield event
    except EventTooLarge:
        raise faults.client(too_large) from None


async def read_whole(response: httpx.Response, largest: int = limits.LARGEST_ANSWER) -> bytes:
    body = bytearray()
    async for chunk in chunks_of(response):
        body += chunk
        if len(body) > largest:
            raise faults.client(f"The MCP server's answer is larger than {largest // 1024} KiB.")
    return bytes(body)


async def read_short(response: httpx.Response) -> bytes:
    """Return the short body of an answer that is not what a call waits for. Raises ServerFailed."""
    if response.extensions[ENDS_AT] is None:
        now = asyncio.get_running_loop().time()
        response.extensions[ENDS_AT] = now + limits.ANSWER_SECONDS
    return await read_whole(response, limits.LARGEST_HEAD)


def media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def session_in(response: httpx.Response) -> str | None:
    """Return the session id in an answer's headers, or None. Raises ServerFailed for one that MCP does not allow."""
    session: str | None = response.headers.get(SESSION)
    if session is not None and (
        not _SESSION_ID.fullmatch(session) or len(session) > limits.LONGEST_SESSION_ID
    ):
        raise faults.client("The MCP server gave a session id that is none.")
    return session


_LINE_END = re.compile(rb"\r\n|\n|\r")
# A stored line takes about this many bytes of memory besides its text. They count towards the limit of an event,
# because an event of a million short lines would otherwise take thirty times the memory of one long line.
_LINE_COST = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):  # noqa: N818 - a state of the stream
    """One event is larger than the limit."""


@dataclass(frozen=True)
class Event:
    """One event: its lines as they came, without line ends."""

    lines: tuple[bytes, ...]

    def encode(self) -> bytes:
        return b"\n".join(self.lines) + b"\n\n"

    @property
    def data(self) -> bytes:
        return b"\n".join(self._values(b"data"))

    @property
    def has_id(self) -> bool:
        return any(self._values(b"id"))

    def _values(self, field: bytes) -> list[bytes]:
        values = []
        for line in self.lines:
            name, _, value = line.partition(b":")
            if name == field:
                values.append(value[1:] if value[:1] == b" " else value)
        return values


class EventSplitter:
    """Takes the bytes of one stream. An event that the stream's end cuts off is dropped, as the HTML standard says."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._held = bytearray()
        # How many bytes at the beginning of `_held` have been searched for a line end without finding one.
        self._searched = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        self._held += chunk
        if not self._begun:
            if _BYTE_ORDER_MARK.startswith(self._held) and len(self._held) < len(_BYTE_ORDER_MARK):
                return
            self._begun = True
            if self._held.startswith(_BYTE_ORDER_MARK):
                del self._held[: len(_BYTE_ORDER_MARK)]
        yield from self._split()
        if self._size + len(self._held) > self._largest:
            raise EventTooLarge

    def _split(self) -> Iterator[Event]:
        if self._after_cr and self._held:
            # The bytes before these ended in CR, which ends a line. An LF that follows belongs to the same line end.
            self._after_cr = False
            if self._held[:1] == b"\n":
                del self._held[:1]
        position = 0
        while (end := _LINE_END.search(self._held, max(position, self._searched))) is not None:
            line = bytes(self._held[position : end.start()])
            position = self._searched = end.end()
            self._after_cr = end.group() == b"\r" and position == len(self._held)
            if line:
                self._lines.append(line)
                self._size += len(line) + _LINE_COST
                if self._size > self._largest:
                    raise EventTooLarge
            elif self._lines:
                event = Event(tuple(self._lines))
                self._lines, self._size = [], 0
                yield event
        del self._held[:position]
        self._searched = len(self._held)
