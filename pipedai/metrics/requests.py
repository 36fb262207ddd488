"""Counts and times HTTP requests by route. A route is the template of a URL, and never the URL itself."""

from prometheus_client import Histogram

from pipedai.server.request_scope import KNOWN_METHODS

# The label of all requests without a route. Unknown methods share a label too, so that clients can't make the number of
# labels grow.
UNMATCHED = "unmatched"
OTHER = "other"

REQUEST_SECONDS = Histogram(
    "pipedai_http_request_duration_seconds",
    "Time from a request's headers to the end of its answer, waiting polls included.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35),
)

# The labelled metrics are kept here, because finding one with `labels()` takes longer than counting and timing a
# request.
_known: dict[tuple[str | None, str | None, int], Histogram] = {}


def observe_request(method: str | None, route: str | None, status: int, seconds: float) -> None:
    """Count one answered request. `route` is the URL template that matched, or None."""
    status_class = status // 100
    child = _known.get((method, route, status_class))
    if child is None:
        child = REQUEST_SECONDS.labels(
            method if method in KNOWN_METHODS else OTHER, route or UNMATCHED, f"{status_class}xx"
        )
        if method in KNOWN_METHODS:
            _known[method, route, status_class] = child
    child.observe(seconds)
