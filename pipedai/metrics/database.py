"""Metrics that a scrape reads from the database. Scrapes within a few seconds share one reading."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from django.db import DatabaseError, connection, transaction
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipedai.logs import get_logger
from pipedai.sql import execute, fetch_all

log = get_logger(__name__)

Read = Callable[[], Iterable[Metric]]

# Figures from the database are read at most once in this many seconds. Scrapes in between get the same figures.
KEEP_SECONDS = 5.0
# Reading takes little time, because a query reads at most ROW_LIMIT rows. This time-out is for a database in trouble.
STATEMENT_TIMEOUT = "2s"
ROW_LIMIT = 100_000

_readers: list[Read] = []


def read_at_scrape(read: Read) -> Read:
    """Decorator: the function reads metrics at each scrape, all in one transaction."""
    _readers.append(read)
    return read


def register_gauges(
    statement: str,
    gauges: Mapping[str, tuple[str, str]],
    *,
    by: str = "",
    words: Collection[str] = (),
    **params: object,
) -> Read:
    """Registers gauges that one statement reads. `gauges` has the name and the description of each by its column. `by`
    names their label and the column with its values. A gauge has a value for each of `words`, 0 if no row has the word;
    without `words` it has one for each row. Returns the function that reads them.
    """

    @read_at_scrape
    def read() -> Iterator[Metric]:
        rows = {
            row.get(by, ""): row for row in fetch_all(statement, {"limit": ROW_LIMIT, **params})
        }
        for column, (name, tells) in gauges.items():
            family = GaugeMetricFamily(name, tells, labels=[by] if by else [])
            for word in words or rows:
                value = rows[word][column] if word in rows else 0
                family.add_metric([word] if by else [], float(value))
            yield family

    return read


class DatabaseCollector(Collector):
    """Collects metrics from the database. If the database is away, a scrape still gets all other metrics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: list[Metric] = []
        self._read_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Returns nothing. Without this method prometheus_client would query the database for the metrics' names."""
        return []

    def collect(self) -> Iterator[Metric]:
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


# This query sees the lag of standbys and the transactions of other roles only if its role has pg_read_all_stats.
register_gauges(
    """
SELECT (current_setting('transaction_read_only') = 'on')::int AS read_only,
    (SELECT coalesce(extract(epoch FROM statement_timestamp() - min(xact_start)), 0)
        FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend') AS oldest,
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep') AS waiting,
    current_setting('max_connections')::int AS most
""",
    {
        "read_only": ("pipedai_database_read_only", "1 if the database takes no writes."),
        "oldest": (
            "pipedai_database_oldest_transaction_seconds",
            "Age of the oldest open transaction.",
        ),
        "waiting": (
            "pipedai_database_commits_waiting",
            "Commits that wait for a synchronous standby.",
        ),
        "most": (
            "pipedai_database_connections_max",
            "Connections that the database server allows.",
        ),
    },
)
register_gauges(
    """
SELECT coalesce(nullif(application_name, ''), 'unnamed') AS standby,
    extract(epoch FROM coalesce(max(replay_lag), interval '0')) AS lag
FROM pg_stat_replication GROUP BY 1 ORDER BY 1 LIMIT 20
""",
    {"lag": ("pipedai_database_replication_lag_seconds", "How far a standby is behind.")},
    by="standby",
)
# PostgreSQL counts dead rows for each table. Each partition of a table is listed as a table of its own.
register_gauges(
    """
SELECT relname AS "table", n_dead_tup AS dead FROM pg_stat_user_tables
WHERE schemaname = current_schema() ORDER BY n_dead_tup DESC LIMIT 10
""",
    {
        "dead": (
            "pipedai_database_dead_rows",
            "Rows that were changed or deleted and that no vacuum has removed yet.",
        )
    },
    by="table",
)
register_gauges(
    """
SELECT CASE WHEN state IN ('active', 'idle', 'idle in transaction') THEN replace(state, ' ', '_')
        ELSE 'other' END AS state,
    count(*) AS connections
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
GROUP BY 1
""",
    {"connections": ("pipedai_database_connections", "Connections to the database.")},
    by="state",
    words=("active", "idle", "idle_in_transaction", "other"),
)
