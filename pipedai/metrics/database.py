"""Metrics that are read from the database when Prometheus asks for them, but not again within a few seconds."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from django.db import DatabaseError, connection, transaction
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipedai.logs import get_logger
from pipedai.sql import execute

log = get_logger(__name__)

Read = Callable[[], Iterable[Metric]]

# Figures from the database are read at most once in this many seconds. Scrapes in between get the same figures.
KEEP_SECONDS = 5.0
# Reading takes little time, because a query reads at most ROW_LIMIT rows. This time-out is for a database in trouble.
STATEMENT_TIMEOUT = "2s"
ROW_LIMIT = 100_000

_readers: list[Read] = []


def read_at_scrape(read: Read) -> Read:
    """Decorator: the function reads metrics from the database when Prometheus asks for them (a scrape).

    All such functions run in one transaction.
    """
    _readers.append(read)
    return read


class DatabaseCollector(Collector):
    """Collects the metrics that are read from the database.

    If the database is away, a scrape still gets all other metrics.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Returns nothing. Without this method prometheus_client would query the database for the metrics' names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, which are at most `KEEP_SECONDS` old."""
        with self._lock:
            if time.monotonic() - self._read_at > KEEP_SECONDS:
                self._metrics = _read()
                self._read_at = time.monotonic()
            yield from self._metrics


def _read() -> list[Metric]:
    up = GaugeMetricFamily("pipedai_database_up", "Whether the database answered this process.")
    try:
        with transaction.atomic():
            execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'", {})
            metrics = [metric for read in _readers for metric in read()]
    except DatabaseError as error:
        log.warning("metrics.database_failed", error=type(error).__name__)
        metrics = []
        up.add_metric([], 0)
    else:
        up.add_metric([], 1)
    finally:
        # The thread needs no connection until Prometheus asks for the metrics again.
        connection.close()
    return [up, *metrics]
