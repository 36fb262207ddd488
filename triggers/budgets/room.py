"""The condition that budgets have room for a run, as SQL about a budget `b` and its window `w`, if there is one."""

from datetime import datetime
from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.sql import NOW, Row, fetch_all
from triggers.models import Budget

# The SQL condition that the budget covers the runs of the trigger `t`.
_COVERS = """b.environment_id = t.environment_id AND b.deleted_at IS NULL
    AND (b.trigger_id IS NULL OR b.trigger_id = t.id)"""
# The SQL condition for the budget's window that contains the present time.
IS_PRESENT = f"""w.budget_id = b.id AND w.generation = b.generation
    AND w.starts_at <= {NOW} AND w.ends_at > {NOW}"""

# How many US dollars count against the budget's limit: what is spent, and what is reserved.
SPENT = "(coalesce(w.spent_usd, 0) - CASE WHEN b.count_notional THEN 0 ELSE coalesce(w.notional_spent_usd, 0) END)"
RESERVED = """(coalesce(w.reserved_usd, 0)
    - CASE WHEN b.count_notional THEN 0 ELSE coalesce(w.notional_reserved_usd, 0) END)"""
USED = f"({SPENT} + {RESERVED})"

# The SQL condition that a subscription pays for the worker, so that its costs are notional.
IS_NOTIONAL = """coalesce((SELECT payer.auth_mode = 'claude_max' FROM worker payer
    WHERE payer.id = %(worker_id)s::uuid), false)"""

# The SQL condition that a subscription pays for a worker that may take the run `r`: its own, or one of its pool.
MAY_BE_NOTIONAL = """(EXISTS (
    SELECT FROM worker payer
    WHERE payer.id = r.worker_id AND payer.auth_mode = 'claude_max' AND payer.deleted_at IS NULL)
    OR EXISTS (
    SELECT FROM pool_member m JOIN worker payer ON payer.id = m.worker_id
    WHERE m.pool_id = r.pool_id AND payer.auth_mode = 'claude_max' AND payer.deleted_at IS NULL))"""


def lacks_room(amount: str, *, is_notional: str = IS_NOTIONAL, is_counted: str = "false") -> str:
    """`amount` is SQL for what a run would reserve. A limit that is used up has no room for any run, but the limit of
    the number of runs for one that `is_counted` already.
    """
    return f"""((coalesce(w.runs, 0) >= b.limit_runs AND NOT {is_counted})
        OR ((b.count_notional OR NOT {is_notional})
            AND ({USED} >= b.limit_usd OR {USED} + {amount} > b.limit_usd)))"""


# What a run of the trigger `t` would reserve in the budget.
AMOUNT = "coalesce(t.max_cost_usd, b.reserve_usd)"
IS_HOLDING = "b.when_reached <> 'notify'"

# The budgets with their present windows.
BUDGETS = f"budget b LEFT JOIN budget_window w ON {IS_PRESENT}"
# The SQL condition that the run `r` was claimed before, and so is counted by limits of the number of runs.
IS_COUNTED = "(r.spells > 0)"


def _budgets_have_room(is_counted: str) -> str:
    return f"""coalesce((SELECT false FROM {BUDGETS}
    WHERE {_COVERS} AND {IS_HOLDING} AND {lacks_room(AMOUNT, is_counted=is_counted)} LIMIT 1), true)"""


# The SQL condition that all budgets that hold runs back have room for the run `r` of the trigger `t`. It is a scalar
# subquery, so that PostgreSQL looks up the budgets of the trigger's environment and does not read those of all others.
BUDGETS_HAVE_ROOM = _budgets_have_room(IS_COUNTED)
# The same for a run of the trigger `t` that no worker has claimed yet.
BUDGETS_HAVE_ROOM_FOR_NEW = _budgets_have_room("false")
# The SQL condition that budgets cover the runs of the trigger `t`. The claim reads this in its own statement, so that a
# run without budgets needs no further one.
HAS_BUDGETS = f"EXISTS (SELECT FROM budget b WHERE {_COVERS})"
# The SQL condition that the run `r` has taken something from a budget, which its end has to settle.
HAS_RESERVATIONS = "EXISTS (SELECT FROM run_reservation x WHERE x.run_id = r.id)"
# The cap (`max_cost_usd`) with which the run `r` was claimed; NULL if it had none. If no budget has a reservation for
# the run, it is the one that the trigger `t` has now.
CAP = """(SELECT CASE WHEN bool_and(x.is_cap) THEN min(x.amount_usd)
        WHEN bool_and(x.is_cap) IS NULL THEN t.max_cost_usd END
    FROM run_reservation x WHERE x.run_id = r.id AND x.spell = r.spells)"""
# The SQL condition that the environment of the trigger `t` has a budget that can refuse requests for runs.
CAN_REJECT = """EXISTS (
    SELECT FROM budget b
    WHERE b.environment_id = t.environment_id AND b.deleted_at IS NULL AND b.when_reached = 'reject')"""


def _reached(is_notional: str) -> str:
    return f"""
SELECT b.id, b.name, b.period, b.timezone, b.limit_usd, b.limit_runs, b.when_reached, b.trigger_id,
    {AMOUNT} AS amount, {SPENT} AS spent, {RESERVED} AS reserved, coalesce(w.runs, 0) AS runs,
    w.ends_at, {NOW} AS now,
    -- Whether the limit would be too small for the run even if nothing were used.
    coalesce(b.limit_runs = 0, false)
        OR ((b.count_notional OR NOT {is_notional})
            AND coalesce(b.limit_usd = 0 OR {AMOUNT} > b.limit_usd, false)) AS never_has_room
FROM run r JOIN trigger t ON t.id = r.trigger_id CROSS JOIN {BUDGETS}
WHERE r.id = %(run_id)s AND {_COVERS} AND {IS_HOLDING}
    AND {lacks_room(AMOUNT, is_notional=is_notional, is_counted=IS_COUNTED)}
ORDER BY b.id
"""


# The budgets that have no room for a run if a certain worker takes it, the first to be made first.
_REACHED = _reached(IS_NOTIONAL)
# The budgets that have no room for a run whichever worker takes it.
_REACHED_FOR_ALL = _reached(MAY_BE_NOTIONAL)

# When the first of the present windows ends that may hold runs of the worker's environment back.
NEXT_WINDOW = f"""(SELECT min(w.ends_at) FROM budget b JOIN budget_window w ON {IS_PRESENT}
    WHERE b.environment_id = (SELECT environment_id FROM worker WHERE id = %(worker_id)s)
        AND b.deleted_at IS NULL AND {IS_HOLDING})"""


def reached_budgets(
    *, run_id: UUID, worker_id: UUID | None, now: datetime | None = None
) -> list[Row]:
    """Returns the budgets that keep a worker from taking a queued run. Each has `amount`, which the run would reserve,
    `ends_at` of its present window, `never_has_room` (whether the limit is too small for the run), and `now`.
    """
    return fetch_all(_REACHED, {"run_id": run_id, "worker_id": worker_id, "now": now})


def check_budgets(*, run_id: UUID, now: datetime | None = None) -> None:
    """Raises Conflict if a budget that rejects requests has no room for this run, which the request has queued. A run
    of a pool has room if a subscription pays for one of the pool's workers.
    """
    for budget in fetch_all(_REACHED_FOR_ALL, {"run_id": run_id, "now": now}):
        if budget["when_reached"] == Budget.WhenReached.REJECT:
            raise Conflict(
                f"The budget {budget['name']} has no room for another run.",
                code=ErrorCode.BUDGET_EXHAUSTED,
            )
