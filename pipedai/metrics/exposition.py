"""Answers scrapes by Prometheus in the web and the scheduler process.

It checks the token and writes the metrics as text.
"""

import hmac
import os

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from pipedai.metrics.directory import VARIABLE

PATH = "/metrics"
UNAUTHORIZED = "Metrics need the bearer token that METRICS_TOKEN holds."
CHALLENGE = 'Bearer realm="metrics"'


def is_authorized(authorization: str | None, token: str) -> bool:
    """Whether an Authorization header contains the token. The comparison takes constant time."""
    scheme, _, sent = (authorization or "").partition(" ")
    # The comparison is of bytes, because compare_digest refuses text that is not ASCII.
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())


def registry() -> CollectorRegistry:
    """Returns the metrics of this process.

    In the web process they include those of all processes that share its directory.
    """
    if VARIABLE not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def exposition(metrics: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Returns the content type that fits the client's Accept header, and the metrics as text of that type."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(metrics)
