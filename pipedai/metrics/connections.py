"""Metrics of the database's connections, as PostgreSQL counts them."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from pipedai.metrics.database import read_at_scrape
from pipedai.sql import fetch_all, fetch_one

_STATES = ("active", "idle", "idle_in_transaction", "other")

_CONNECTIONS = """
SELECT CASE WHEN state IN ('active', 'idle', 'idle in transaction') THEN replace(state, ' ', '_')
        ELSE 'other' END AS state,
    count(*) AS connections
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
GROUP BY 1
"""


@read_at_scrape
def read_connections() -> Iterator[Metric]:
    """Yields the number of connections to our database by state, and how many connections the server allows."""
    rows = {row["state"]: row["connections"] for row in fetch_all(_CONNECTIONS, {})}
    connections = GaugeMetricFamily(
        "pipedai_database_connections", "Connections to the database.", labels=["state"]
    )
    for state in _STATES:
        connections.add_metric([state], rows.get(state, 0))
    yield connections
    most = fetch_one("SELECT current_setting('max_connections')::int AS most", {})
    assert most is not None
    yield GaugeMetricFamily(
        "pipedai_database_connections_max",
        "Connections that the database server allows.",
        value=most["most"],
    )
