"""Tells each scrape which version of the service the process runs."""

from prometheus_client import Gauge

from pipedai.version import VERSION

# The value is always 1. All processes of a web server run the same version, so one line stands for all of them.
_BUILD = Gauge(
    "pipedai_build_info",
    "1, with the version of the service that the process runs.",
    ["version"],
    multiprocess_mode="max",
)


def tell_version() -> None:
    """Sets the metric of the service's version. Call it once in a process whose metrics are on."""
    _BUILD.labels(VERSION).set(1)
