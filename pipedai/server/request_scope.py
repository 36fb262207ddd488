"""Cleans a request's ASGI scope, so that WSGI code reads the same request. It makes no copies, to save memory.

It also finds the address of a client that calls through trusted proxies, and has the headers of every answer.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

from pipedai.api.error_codes import ErrorCode

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# The address of a peer on a Unix socket, which has none. Such a peer runs on this machine.
LOCAL = "127.0.0.1"


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Returns the networks of TRUSTED_PROXIES. Raises ValueError with a sentence for a word that names no network."""
    networks = []
    for word in words:
        try:
            networks.append(ip_network(word, strict=False))
        except ValueError:
            raise ValueError(
                f"TRUSTED_PROXIES must list IP addresses or networks; {word!r} is neither."
            ) from None
    return tuple(networks)


def client_address(
    peer: str | None, forwarded_for: str | None, trusted_proxies: Sequence[Network]
) -> str:
    """Returns the client's address, without port and zone. If the peer is no trusted proxy, it is the peer's address;
    else it is the rightmost hop of `X-Forwarded-For` that is no trusted proxy. A hop that is no address ends the
    search, and the result is the proxy that reported this hop.
    """
    nearest = _address(peer or LOCAL)
    if nearest is None:
        return LOCAL
    for hop in reversed((forwarded_for or "").split(",")):
        if not _is_in(nearest, trusted_proxies):
            break
        address = _address(hop)
        if address is None:
            break
        nearest = address
    return str(nearest)


def is_trusted_proxy(peer: str | None, trusted_proxies: Sequence[Network]) -> bool:
    """Whether the peer is trusted, so that we believe its headers about the client's address and scheme."""
    address = _address(peer or LOCAL)
    return address is not None and _is_in(address, trusted_proxies)


@lru_cache(maxsize=256)
def network_of(address: str) -> str:
    """Returns an IPv4 address itself, and the /64 network of an IPv6 address, which one subscriber usually has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


# The cache helps because clients keep their connections open, so that the same few addresses are parsed again and
# again.
@lru_cache(maxsize=256)
def _address(text: str) -> Address | None:
    """Returns the address in one hop of `X-Forwarded-For`, which may have a port or a zone, or None."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


API = "/api/v1"
# The path of the hooks, to which other people's servers post events with any Content-Type.
HOOKS = f"{API}/hooks/"
CONSOLE = "/console"
SERVER = b"pipedai"

RawHeaders = list[tuple[bytes, bytes]]

# The Content-Security-Policy of the API and of every path without a policy of its own. A browser may load nothing under
# it.
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
# Pages with forms and a style sheet, and no script.
_FORMS = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
# Pages with scripts as well, which may call the service.
_SCRIPTS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)
_POLICIES = {
    # A person must type the code in the URL's fragment, so the page has no script, which could read it.
    f"{CONSOLE}/pair": _FORMS,
    # The issuer sends the browser back to this page with a code in the URL, which no script must read.
    f"{CONSOLE}/sso": _FORMS,
    CONSOLE: _SCRIPTS,
    "/admin": _SCRIPTS,
    "/account/notices/stop": _FORMS,
    # Authorization servers send the browser back to this page with a code in the URL, which no script must read.
    "/account/connections": _FORMS,
    # Swagger UI's style sheet holds its icons as data: URLs.
    "/api/docs": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_API_HEADERS = {b"cache-control": b"no-store"}
_CONSOLE_HEADERS = {**_API_HEADERS, b"referrer-policy": b"same-origin"}
_HSTS = {b"strict-transport-security": b"max-age=31536000"}


def is_api(path: str) -> bool:
    return _is_below(path, API)


def is_console(path: str) -> bool:
    return _is_below(path, CONSOLE)


def content_policy(path: str) -> str:
    return next(
        (policy for prefix, policy in _POLICIES.items() if _is_below(path, prefix)), _NO_PAGE
    )


def complete_headers(
    given: RawHeaders, *, request_id: str, path: str, production: bool
) -> RawHeaders:
    """Adds the service's headers. Under the API's paths they replace those of the application, elsewhere not."""
    ours = {
        b"x-content-type-options": b"nosniff",
        b"content-security-policy": content_policy(path).encode("latin-1"),
    } | (_HSTS if production else {})
    if is_console(path):
        ours |= _CONSOLE_HEADERS
    if is_api(path):
        ours |= _API_HEADERS
        kept = without(given, *ours)
        added = ours
    else:
        kept = given
        names = {name.lower() for name, _ in given}
        added = {name: value for name, value in ours.items() if name not in names}
    always = {b"x-request-id": request_id.encode("latin-1"), b"server": SERVER}
    return [*without(kept, *always), *added.items(), *always.items()]


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


# These paths answer with any Host in the request, because probes call a process by its network address. HTTP/1.0 has no
# Host header at all, and HAProxy's checks use that version by default.
PROBES = frozenset({f"{API}/health", f"{API}/health/live", "/metrics"})


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """Ends a request with this answer. `unread`: the request's body may be incomplete. `retry_after` is in seconds."""

    def __init__(
        self,
        status: HTTPStatus,
        sentence: str,
        *,
        code: ErrorCode,
        unread: bool = True,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.unread = unread
        self.code = code
        self.retry_after = retry_after


class ClientGone(Exception):  # noqa: N818
    """The client has left, so nobody waits for an answer."""


Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


# The HTTP methods that metrics and traces name. A client may send any word as a method, so all others share one label.
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})

# The key in the ASGI scope of the client's address, as resolved through the trusted proxies.
CLIENT = "pipedai.client"

# The page to which a mail program sends `List-Unsubscribe=One-Click`, perhaps as a multipart body (RFC 8058 §3.1). The
# page does not read the body.
ONE_CLICK = "/account/notices/stop"

_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
# A parameter in the form of RFC 2231. It may name its own charset, in which it would be decoded.
_EXTENDED = re.compile(r"\*[0-9]*\*?\s*=")
# A charset other than UTF-8. Each "charset" counts, so that no quoting hides one.
_OTHER_CHARSET = re.compile(r'charset(?!\s*=\s*(?:utf-?8|"utf-?8")\s*(?:;|$))', re.IGNORECASE)


def header(headers: RawHeaders, name: bytes) -> str | None:
    values = [value for key, value in headers if key == name]
    return b",".join(values).decode("latin-1") if values else None


def without(headers: RawHeaders, *names: bytes) -> RawHeaders:
    return [(name, value) for name, value in headers if name.lower() not in names]


def resolve_client(scope: Scope, trusted_proxies: Sequence[Network]) -> str:
    forwarded_for = header(scope["headers"], b"x-forwarded-for") if trusted_proxies else None
    return client_address(_peer(scope), forwarded_for, trusted_proxies)


def clean_scope(scope: Scope, *, client: str, trusted_proxies: Sequence[Network]) -> None:
    """Change the scope so that ASGI and WSGI code read the same request. Raises Refused for a request without a Host
    (unless it is a probe), a target that is no path, a query that is not ASCII (RFC 3986), and a charset other than
    UTF-8.
    """
    path, host = _target(scope["path"])
    if not scope["query_string"].isascii():
        raise _malformed("The query string must be percent-encoded.")
    headers = _clean_headers(scope["headers"], host)
    if path.startswith(HOOKS):
        # Hooks don't look at the Content-Type, so it is removed instead of being checked.
        headers = without(headers, b"content-type")
    _check_charset(headers, path)
    said = header(headers, b"host")
    # A probe may come with HTTP/1.0 or with an empty Host. HTTP/1.1 demands a Host (RFC 9112 §3.2).
    may_lack_host = path in PROBES and (said is not None or scope["http_version"] == "1.0")
    if not (said or "").strip() and not may_lack_host:
        raise _malformed("The Host header is missing.")
    if is_trusted_proxy(_peer(scope), trusted_proxies) and (scheme := _forwarded_scheme(headers)):
        scope["scheme"] = scheme
    scope["path"] = path
    scope["headers"] = headers
    scope["client"] = (client, (scope.get("client") or ("", 0))[1])
    scope[CLIENT] = client


def say_body_length(scope: Scope, body: bytes) -> None:
    kept = without(scope["headers"], b"content-length", b"transfer-encoding", b"expect")
    if body:
        kept.append((b"content-length", str(len(body)).encode()))
    scope["headers"] = kept


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return str(client[0]) if client and client[0] else None


def _target(path: str) -> tuple[str, bytes | None]:
    if path.startswith("/"):
        return path, None
    if scheme := _ABSOLUTE.match(path):
        host, slash, rest = path[scheme.end() :].partition("/")
        if host and host.isascii():
            return slash + rest or "/", host.encode()
    raise _malformed("The request target must be a path.")


def _clean_headers(headers: RawHeaders, host: bytes | None) -> RawHeaders:
    """Return headers that WSGI can't confuse. WSGI gives `a_b` and `a-b` the same name, so headers with `_` are
    dropped. Repeated headers are joined by a comma, and cookies by a semicolon.
    """
    cookies = [value for name, value in headers if name == b"cookie"]
    kept = [(name, value) for name, value in headers if b"_" not in name and name != b"cookie"]
    if cookies:
        kept.append((b"cookie", b"; ".join(cookies)))
    if host is not None:
        kept = [(b"host", host), *without(kept, b"host")]
    return kept


def _check_charset(headers: RawHeaders, path: str) -> None:
    """Raises Refused for headers that make Django use another codec than UTF-8. Some of Python's codecs take minutes
    for a megabyte (punycode) or decode no text (hex).
    """
    content_type = header(headers, b"content-type") or ""
    if content_type.lstrip().lower().startswith("multipart/") and path != ONE_CLICK:
        raise _unsupported("The body must not be multipart.")
    if _OTHER_CHARSET.search(content_type) or _EXTENDED.search(content_type):
        raise _unsupported("The only charset is UTF-8.")
    if _EXTENDED.search(header(headers, b"accept") or ""):
        raise Refused(
            HTTPStatus.NOT_ACCEPTABLE, "The only charset is UTF-8.", code=ErrorCode.NOT_ACCEPTABLE
        )


def _forwarded_scheme(headers: RawHeaders) -> str | None:
    """Return the scheme of the original request as the nearest trusted proxy reports it, or None."""
    said = (header(headers, b"x-forwarded-proto") or "").rpartition(",")[2].strip().lower()
    return said if said in {"http", "https"} else None


def _unsupported(sentence: str) -> Refused:
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return Refused(status, sentence, code=ErrorCode.UNSUPPORTED_MEDIA_TYPE)


def _malformed(sentence: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, sentence, code=ErrorCode.MALFORMED_REQUEST)
