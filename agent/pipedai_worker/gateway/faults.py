"""Says in one sentence, without any secret, why a run's MCP server can't be used, and whose fault that is."""

from __future__ import annotations

import socket
import ssl

import httpx

from pipedai_worker.api import causes
from pipedai_worker.running.outcome import CLIENT, INFRA, Fault

TOO_MANY_REQUESTS = 429
PROXY_REFUSED = 407
UNAUTHORIZED = 401
REFUSED_HEADERS = frozenset({UNAUTHORIZED, 403})
INFRA_STATUSES = frozenset({408, TOO_MANY_REQUESTS})
# A server with only MCP's older transport, HTTP+SSE, answers so, because there a POST to the URL itself means nothing.
NO_POSTS = frozenset({404, 405})


class ServerFailed(Exception):  # noqa: N818 - it carries a fault
    def __init__(self, fault_class: str, sentence: str, *, unanswered: bool = False) -> None:
        """`unanswered` says that the server may have got the request, and that its answer did not come."""
        super().__init__(sentence)
        self.fault = Fault(fault_class, sentence)
        self.unanswered = unanswered


def infra(sentence: str, *, unanswered: bool = False) -> ServerFailed:
    """Return the error for a failure after which another attempt may succeed."""
    return ServerFailed(INFRA, sentence, unanswered=unanswered)


def client(sentence: str) -> ServerFailed:
    """Return the error for a server, or for a trigger, that would fail in the same way at each attempt."""
    return ServerFailed(CLIENT, sentence)


def of_status(status: int, *, expiring: bool = False, begins: bool = False) -> ServerFailed | None:
    """Return a status's error; None for 2xx. `expiring` headers may be replaced; `begins` means `initialize`."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return client(
            f"The MCP server answered {status}, a redirect, which the worker does not follow."
        )
    if status == UNAUTHORIZED and expiring:
        return infra(
            f"The MCP server answered {status}: it refused the access token of the trigger's connection."
        )
    if status in REFUSED_HEADERS:
        return client(
            f"The MCP server answered {status}: it refused the trigger's MCP headers, or misses one."
        )
    if status == PROXY_REFUSED:
        return infra("The worker's proxy answered 407: it asks the worker to log in.")
    if status == TOO_MANY_REQUESTS:
        return infra("The MCP server answered 429: it was called too often.")
    if begins and status in NO_POSTS:
        return client(
            f"The MCP server answered {status}: it does not speak streamable HTTP at this URL. If it has the deprecated"
            " HTTP+SSE transport, which the worker does not speak, give the trigger the server's URL for streamable"
            " HTTP, which often ends in /mcp."
        )
    if status >= 500 or status in INFRA_STATUSES:
        return infra(f"The MCP server answered {status}.")
    return client(f"The MCP server answered {status}.")


def of_error(error: BaseException) -> ServerFailed:
    """Return the error for an exception of httpx. The error omits the exception's text, which may quote a header."""
    all_causes = list(causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in all_causes):
        return infra("The MCP server can't be reached: the name of its host is not found.")
    for cause in all_causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message.rstrip(".")
            return infra(f"The MCP server can't be reached: its certificate is not valid ({why}).")
    if any(isinstance(cause, ssl.SSLError) for cause in all_causes):
        return infra("The MCP server can't be reached: it does not speak TLS as it should.")
    if any(isinstance(cause, ConnectionRefusedError) for cause in all_causes):
        return infra("The MCP server can't be reached: it refused the connection.")
    for kind, sentence, unanswered in _KINDS:
        if isinstance(error, kind):
            return infra(sentence, unanswered=unanswered)
    return infra("The MCP server broke off the connection.", unanswered=True)


# The sentence for each kind of error, the special ones first, and whether the server may have got the request.
_KINDS: tuple[tuple[type[httpx.HTTPError], str, bool], ...] = (
    (httpx.ProxyError, "The MCP server can't be reached: the worker's proxy refused.", False),
    (httpx.ConnectTimeout, "The MCP server can't be reached: it did not answer in time.", False),
    (httpx.PoolTimeout, "The MCP server has too many calls open.", False),
    (httpx.ConnectError, "The MCP server can't be reached.", False),
    (httpx.TimeoutException, "The MCP server was silent for too long.", True),
    (httpx.RemoteProtocolError, "The MCP server broke off, or does not speak HTTP.", True),
)
