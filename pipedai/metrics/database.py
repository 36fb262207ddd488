"""Metrics that are read from the database when somebody asks for them: at most every few seconds."""

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

# A scrape of an answer this old costs no query.
KEEP_SECONDS = 5.0
# The readers' own bound is how many rows they look at, ROW_LIMIT at most; this is for a database in trouble.
STATEMENT_TIMEOUT = "2s"
ROW_LIMIT = 100_000

_readers: list[Read] = []


def read_at_scrape(read: Read) -> Read:
    """Decorator: these metrics are read from the database at a scrape, in one transaction with others'."""
    _readers.append(read)
    return read


class DatabaseCollector(Collector):
    """Collects what the readers give. Without a database the other metrics still go out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise query the database to find the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics, up to `KEEP_SECONDS` old."""
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
        connection.close()  # the thread of scrapes needs none in between
    return [up, *metrics]
