"""Metrics that show when the database is in trouble.

They tell whether it is read-only, how far its standbys lag behind, and whether it keeps dead rows or an old
transaction.
"""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from pipedai.metrics.database import read_at_scrape
from pipedai.sql import Row, fetch_all, fetch_one

# Only for roles with pg_read_all_stats does this query see the lag of standbys and the transactions of other roles.
_STATE = """
SELECT (current_setting('transaction_read_only') = 'on')::int AS read_only,
    (SELECT coalesce(extract(epoch FROM statement_timestamp() - min(xact_start)), 0)
        FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend') AS oldest,
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep') AS waiting
"""
_LAG = """
SELECT coalesce(nullif(application_name, ''), 'unnamed') AS standby,
    extract(epoch FROM coalesce(max(replay_lag), interval '0')) AS lag
FROM pg_stat_replication GROUP BY 1 ORDER BY 1 LIMIT 20
"""
# PostgreSQL counts dead rows for each table. Each partition of a table is listed as a table of its own.
_DEAD = """
SELECT relname AS name, n_dead_tup AS dead FROM pg_stat_user_tables
WHERE schemaname = current_schema() ORDER BY n_dead_tup DESC LIMIT 10
"""


@read_at_scrape
def read_state() -> Iterator[Metric]:
    """Yields whether the database is read-only, its oldest transaction, its standbys' lag, and its dead rows."""
    state: Row | None = fetch_one(_STATE, {})
    assert state is not None
    yield GaugeMetricFamily(
        "pipedai_database_read_only", "1 if the database takes no writes.", value=state["read_only"]
    )
    yield GaugeMetricFamily(
        "pipedai_database_oldest_transaction_seconds",
        "Age of the oldest open transaction.",
        value=float(state["oldest"]),
    )
    yield GaugeMetricFamily(
        "pipedai_database_commits_waiting",
        "Commits that wait for a synchronous standby.",
        value=state["waiting"],
    )
    lag = GaugeMetricFamily(
        "pipedai_database_replication_lag_seconds",
        "How far a standby is behind.",
        labels=["standby"],
    )
    for row in fetch_all(_LAG, {}):
        lag.add_metric([row["standby"]], float(row["lag"]))
    yield lag
    dead = GaugeMetricFamily(
        "pipedai_database_dead_rows",
        "Rows that were changed or deleted and that no vacuum has removed yet.",
        labels=["table"],
    )
    for row in fetch_all(_DEAD, {}):
        dead.add_metric([row["name"]], row["dead"])
    yield dead
