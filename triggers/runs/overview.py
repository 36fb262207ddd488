"""Computes the figures on an environment's dashboard (SPEC §5)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pipedai.sql import Row, fetch_one, fetch_row, without_sorting
from triggers.budgets.periods import period_around
from triggers.models import Budget
from triggers.runs.conditions import is_online

# The percentage of successes among ended runs, to one decimal, or NULL if no run counts. Canceled runs do not count:
# somebody stopped them, so they tell nothing about the work. The expression is for a SELECT from `run r`.
SUCCESS_RATE = """
round(100.0 * count(*) FILTER (WHERE r.status = 'succeeded')
    / nullif(count(*) FILTER (WHERE r.status <> 'canceled'), 0), 1)"""

# Sums up the runs since the beginning of the day, and of the month. The sums are quick, because two indexes contain all
# the columns they need: `run_ended` for the day, and `run_ended_cost`, which is narrow, for the month. The runs are
# read in order, so that PostgreSQL starts to read the index at the beginning. Otherwise it might read all runs of an
# environment in which it expects few.
_OVERVIEW = f"""
SELECT
    (SELECT count(*) FROM (
        SELECT FROM run
        WHERE environment_id = %(environment_id)s AND queued_at >= %(day)s
        ORDER BY queued_at) r) AS todays_runs,
    ended.success_rate, coalesce(spent.cost_usd, 0) AS month_cost_usd
FROM (
    SELECT {SUCCESS_RATE} AS success_rate FROM (
        SELECT status FROM run
        WHERE environment_id = %(environment_id)s AND ended_at >= %(day)s
        ORDER BY ended_at) r) ended, (
    SELECT sum(r.cost_usd) AS cost_usd FROM (
        SELECT cost_usd FROM run
        WHERE environment_id = %(environment_id)s AND ended_at >= %(month)s
        ORDER BY ended_at) r) spent
"""


_ONLINE = f"""
SELECT count(*) AS online, statement_timestamp() AS now FROM worker w
WHERE w.environment_id = %(environment_id)s AND w.deleted_at IS NULL AND {is_online("w")}
"""


def count_online_workers(environment_id: UUID) -> tuple[int, datetime]:
    """Returns how many workers of the environment are online now, and the time on the database's clock."""
    row = fetch_row(_ONLINE, {"environment_id": environment_id, "now": None})
    return row["online"], row["now"]


# The enabled trigger that is due next. The CTE keeps PostgreSQL from reading the due times of all environments.
_NEXT_DUE = """
WITH scheduled AS MATERIALIZED (
    SELECT id, name, timezone, next_run_at FROM trigger
    WHERE environment_id = %(environment_id)s AND deleted_at IS NULL AND enabled AND next_run_at IS NOT NULL)
SELECT id AS trigger_id, name AS trigger_name, next_run_at AS at, timezone FROM scheduled
ORDER BY next_run_at, id LIMIT 1
"""


def next_due(environment_id: UUID) -> Row | None:
    """Returns the trigger that is due next, and when, as a NextDueSerializer shows it; None if no schedule is on."""
    return fetch_one(_NEXT_DUE, {"environment_id": environment_id})


def run_figures(*, environment_id: UUID, timezone: str, now: datetime) -> Row:
    """Returns the figures of the day and the month of `now`, which begin at midnight in the time zone. `success_rate`
    is in percent of the runs that ended on the day and were not canceled; None if there are none.
    """
    params: dict[str, Any] = {"environment_id": environment_id}
    params |= {each: period_around(now, each, timezone)[0] for each in Budget.Period.values}
    with without_sorting():
        return fetch_row(_OVERVIEW, params)
