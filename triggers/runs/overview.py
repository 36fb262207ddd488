"""Computes the figures about runs on an environment's dashboard, in one query (SPEC §5)."""

from datetime import datetime
from uuid import UUID

from pipedai.sql import NOW, Row, fetch_one

# The day and the month begin at midnight in the given zone. Both sums read the index `run_ended_summed` alone, which
# contains all the columns they need.
_OVERVIEW = f"""
WITH clock AS (
    SELECT {NOW} AS now),
since AS (
    SELECT now, date_trunc('day', now AT TIME ZONE %(timezone)s) AT TIME ZONE %(timezone)s AS midnight,
        date_trunc('month', now AT TIME ZONE %(timezone)s) AT TIME ZONE %(timezone)s AS first
    FROM clock)
SELECT
    (SELECT count(*) FROM run r, since s
        WHERE r.environment_id = %(environment_id)s AND r.queued_at >= s.midnight) AS todays_runs,
    ended.success_rate, coalesce(spent.cost_usd, 0) AS month_cost_usd
FROM (
    SELECT round(100.0 * count(*) FILTER (WHERE r.status = 'succeeded') / nullif(count(*), 0), 1) AS success_rate
    FROM run r, since s
    WHERE r.environment_id = %(environment_id)s AND r.ended_at >= s.midnight AND r.status <> 'canceled') ended, (
    SELECT sum(r.cost_usd) AS cost_usd FROM run r, since s
    WHERE r.environment_id = %(environment_id)s AND r.ended_at >= s.first) spent
"""


def run_figures(*, environment_id: UUID, timezone: str, now: datetime | None = None) -> Row:
    """Returns `todays_runs`, `success_rate` and `month_cost_usd`.

    `success_rate` is the percentage of successes among the runs that ended today, without canceled ones; None if there
    are none.
    """
    row = fetch_one(_OVERVIEW, {"environment_id": environment_id, "timezone": timezone, "now": now})
    assert row is not None
    return row
