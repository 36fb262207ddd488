"""Removes old windows of budgets, so that their number stays bounded."""

from collections.abc import Iterator

from pipedai.retention import Batch, Order, count_or_remove

# How many days a window is kept after its end: two years, so that the same month of the year before can be looked up.
WINDOW_DAYS = 731

# A window stays as long as one of its runs, whose reservation names it, and until its last notice is settled.
_OLD = """
SELECT w.id FROM budget_window w
WHERE w.ends_at < %(before)s AND w.noticed_pct = 0 AND NOT w.is_changed
    AND NOT EXISTS (SELECT FROM run_reservation x WHERE x.window_id = w.id)
"""
_COUNT = f"SELECT count(*) AS n FROM ({_OLD}) old"
_REMOVE = f"""
WITH old AS MATERIALIZED ({_OLD} ORDER BY w.ends_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM budget_window w USING old WHERE w.id = old.id
"""


def prune_windows(order: Order) -> Iterator[Batch]:
    """Removes the windows that ended before `order.before` and whose runs have been removed. It writes no audit row,
    since the API shows present windows alone.
    """
    return count_or_remove(order, count=_COUNT, remove=_REMOVE)
