"""Answers scrapes by Prometheus, in the web and in the scheduler process, and has the metrics of both."""

import hmac
import os
from http import HTTPStatus

from django.utils.module_loading import autodiscover_modules
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from pipedai.api.error_codes import ErrorCode
from pipedai.clocks import of_this_process
from pipedai.events import Event, on_committed
from pipedai.metrics import VARIABLE
from pipedai.server.outer import error_answer
from pipedai.server.request_scope import RawHeaders
from pipedai.version import VERSION

PATH = "/metrics"
_UNAUTHORIZED = "Metrics need the bearer token that METRICS_TOKEN holds."
_CHALLENGE = (b"www-authenticate", b'Bearer realm="metrics"')

# The value is always 1. All processes of a web server run the same version, so one line stands for all of them.
_BUILD = Gauge(
    "pipedai_build_info",
    "1, with the version of the service that the process runs.",
    ["version"],
    multiprocess_mode="max",
)
CLOCK_SKEW = Gauge(
    "pipedai_clock_skew_seconds",
    "How far the database's clock is ahead of the process's, measured at its last heartbeat.",
    multiprocess_mode="liveall",
)
AUDIT_ENTRIES = Counter("pipedai_audit_entries", "Rows written to the audit log.", ["action"])


@on_committed
def count_audit_entry(event: Event) -> None:
    """Counts a domain event as one row of the audit log, because each event makes exactly one."""
    AUDIT_ENTRIES.labels(event.action).inc()


def begin() -> None:
    autodiscover_modules("metrics")
    # The import stands here, because `outgoing` loads models, and this file is loaded before the models.
    from pipedai.metrics import outgoing

    outgoing.start_at_zero()
    _BUILD.labels(VERSION).set(1)


def skew_of_this_process() -> float:
    return of_this_process.last.seconds if of_this_process.last else 0.0


def registry() -> CollectorRegistry:
    """Returns this process's metrics. In a web process they include those of all processes that share its directory."""
    if VARIABLE not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def refusal(
    path: str, method: str, authorization: str | None, token: str
) -> tuple[HTTPStatus, RawHeaders, bytes] | None:
    """Returns None for a scrape with the right token, or the answer to any other request."""
    scheme, _, sent = (authorization or "").partition(" ")
    if path != PATH:
        status, more, sentence = HTTPStatus.NOT_FOUND, [], f"Metrics are at {PATH}."
        code = ErrorCode.NOT_FOUND
    # The comparison is of bytes, because compare_digest refuses text that is not ASCII.
    elif scheme.lower() != "bearer" or not hmac.compare_digest(
        sent.strip().encode(), token.encode()
    ):
        status, more, sentence = HTTPStatus.UNAUTHORIZED, [_CHALLENGE], _UNAUTHORIZED
        code = ErrorCode.INVALID_TOKEN if authorization else ErrorCode.UNAUTHENTICATED
    elif method not in {"GET", "HEAD"}:
        status, more = HTTPStatus.METHOD_NOT_ALLOWED, [(b"allow", b"GET, HEAD")]
        sentence, code = "Metrics are read with GET.", ErrorCode.METHOD_NOT_ALLOWED
    else:
        return None
    headers, body = error_answer(sentence, code=code)
    return status, [*headers, *more], body


def exposition(metrics: CollectorRegistry, accept: str) -> tuple[HTTPStatus, RawHeaders, bytes]:
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:  # for a version that is no number
        encode, content_type = choose_encoder("")
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    return HTTPStatus.OK, headers, encode(metrics)
