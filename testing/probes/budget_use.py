"""Compares what budgets have used with the ledger, to the last digit."""

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

# What each window should have used: for an ended run its cost in the ledger, else the cost of a late report that came
# after its retry was claimed, else nothing if its worker ended it before its start, else what was reserved; and for a
# run that has not ended what was reserved.
_WINDOWS = """
WITH meant AS (
    SELECT x.window_id, count(*) AS runs,
        coalesce(sum(x.amount_usd) FILTER (WHERE r.ended_at IS NULL), 0) AS reserved,
        coalesce(sum(coalesce(r.cost_usd, (t.late_result ->> 'costUsd')::numeric,
            CASE WHEN r.ended_by = 'worker' AND r.started_at IS NULL THEN 0 ELSE x.amount_usd END))
            FILTER (WHERE r.ended_at IS NOT NULL), 0) AS spent
    FROM run_reservation x JOIN run r ON r.id = x.run_id LEFT JOIN run_text t ON t.run_id = r.id
    GROUP BY x.window_id)
SELECT w.budget_id, w.starts_at, w.runs, w.reserved_usd, w.spent_usd, m.runs AS meant_runs,
    m.reserved AS meant_reserved, m.spent AS meant_spent
FROM budget_window w LEFT JOIN meant m ON m.window_id = w.id
WHERE (w.runs, w.reserved_usd, w.spent_usd) IS DISTINCT FROM
    (coalesce(m.runs, 0), coalesce(m.reserved, 0), coalesce(m.spent, 0))
"""

# The claimed runs that lack a reservation in a budget that covers them, and the runs that have one without a claim.
_RUNS = """
SELECT r.id, r.status, b.name, x.run_id IS NOT NULL AS has_reservation
FROM run r JOIN budget b ON b.environment_id = r.environment_id AND coalesce(b.trigger_id, r.trigger_id) = r.trigger_id
LEFT JOIN (SELECT x.run_id, w.budget_id FROM run_reservation x JOIN budget_window w ON w.id = x.window_id) x
    ON x.run_id = r.id AND x.budget_id = b.id
WHERE (r.claimed_at IS NOT NULL) <> (x.run_id IS NOT NULL)
"""


def complaints_about_budgets(all_rows: Callable[[str], list[Row]]) -> list[str]:
    """Returns what is wrong with the budgets, a sentence each. `all_rows` executes a statement and returns its rows.

    The budgets must have been made before the first claim, and must not have been changed.
    """
    windows = [
        f"A budget's window has not used what it should: {row}" for row in all_rows(_WINDOWS)
    ]
    runs = [f"A claim and its reservation differ: {row}" for row in all_rows(_RUNS)]
    return windows + runs
