"""Sends requests to a run's MCP server, with the trigger's headers, by the machine's proxy, and without redirects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import unquote

import httpx

from pipedai_worker.gateway import faults, limits
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.reading import ENDS_AT, within

# Headers with these names are never forwarded. They concern a single connection (RFC 9110 §7.6.1), or the form in which
# a message is sent on it.
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
# A client's headers with these names are not forwarded. They are about the client itself, or are meant for the gateway
# alone, to which the client sends its requests.
NOT_FORWARDED = HOP_BY_HOP | {"host", "authorization", "cookie", "origin", "accept-encoding"}
_HOST = re.compile(r"[0-9A-Za-z._:-]+")
LARGEST_PORT = 65535
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

Headers = list[tuple[bytes, bytes]]


class Upstream:
    """The client of one MCP server. If the trigger's URL or headers can't be used, each request raises ServerFailed."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._fault: ServerFailed | None = None
        self._headers: Headers = []
        self._own: frozenset[bytes] = frozenset()
        self.url = httpx.URL("http://invalid.invalid/")
        self._client: httpx.AsyncClient | None = None
        try:
            self.url, given = _parse(url)
            self._headers = _sendable([*given, *headers.items()])
            self._own = frozenset(name.lower() for name, _ in self._headers)
        except ServerFailed as failed:
            self._fault = failed
        self._secrets = tuple(value for value in headers.values() if len(value) >= 8)

    def open(self) -> None:
        if self._fault is None:
            try:
                self._client = _client(self.url)
            except ServerFailed as failed:
                self._fault = failed

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def holds_secret(self, text: str) -> bool:
        return any(value in text for value in self._secrets)

    @contextlib.asynccontextmanager
    async def send(
        self,
        method: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None = None,
        *,
        url: httpx.URL | None = None,
        seconds: float | None = limits.ANSWER_SECONDS,
    ) -> AsyncIterator[httpx.Response]:
        """Yield the answer before its body is read. The whole answer must come within `seconds`. Raises
        ServerFailed.
        """
        if self._fault is not None:
            raise self._fault
        if self._client is None:
            raise faults.infra("The gateway is closed.")
        timeout = httpx.Timeout(
            None,
            connect=limits.CONNECT_SECONDS,
            write=limits.SEND_SECONDS,
            pool=limits.CONNECT_SECONDS,
        )
        target = url or self.url
        ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            request = httpx.Request(
                method,
                target,
                headers=self._merged(headers, target, body),
                content=body,
                extensions={"timeout": timeout.as_dict()},
            )
            answer = await within(ends_at, self._client.send(request, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise faults.of_error(error) from None
        answer.extensions[ENDS_AT] = ends_at
        try:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise faults.client(
                    "The MCP server compressed its answer, although the worker takes none compressed."
                )
            yield answer
        finally:
            await answer.aclose()

    def _merged(
        self, headers: Iterable[tuple[str, str]], url: httpx.URL, body: bytes | None
    ) -> Headers:
        merged = list(self._headers)
        if b"host" not in self._own:
            merged.insert(0, (b"Host", url.netloc))
        merged.append((b"Accept-Encoding", b"identity"))
        if body is not None:
            merged.append((b"Content-Length", b"%d" % len(body)))
        for name, value in headers:
            small = name.lower()
            if small not in NOT_FORWARDED and small.encode() not in self._own:
                merged.append((name.encode("latin-1"), value.encode("latin-1")))
        return merged


def _parse(url: str) -> tuple[httpx.URL, list[tuple[str, str]]]:
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
    given = []
    if parsed.userinfo:
        user, _, password = parsed.userinfo.decode("latin-1").partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        given.append(("Authorization", f"Basic {b64encode(pair).decode()}"))
    return parsed.copy_with(userinfo=None, fragment=None), given


def _sendable(headers: list[tuple[str, str]]) -> Headers:
    """Return the trigger's headers as bytes. The last of a name counts, and what it must not set is left out."""
    made: dict[bytes, tuple[bytes, bytes]] = {}
    for name, value in headers:
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
