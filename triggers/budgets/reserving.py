"""Reserves money for a run that is being claimed, in all budgets that cover it or in none (SPEC §17)."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all
from triggers.budgets.periods import period_around
from triggers.budgets.room import BUDGETS, IS_HOLDING, IS_NOTIONAL, lacks_room

# Locks the present windows of the budgets that cover a run, in the order of their ids, and then reads what they have
# used. If one of the windows has no row yet, nothing is locked: a transaction that holds windows must not wait for
# another one that inserts one.
_LOCK = f"""
WITH b AS MATERIALIZED (
    SELECT b.*, w.id AS window_id
    FROM {BUDGETS}
    WHERE b.environment_id = %(environment_id)s AND b.deleted_at IS NULL
        AND (b.trigger_id IS NULL OR b.trigger_id = %(trigger_id)s)),
w AS MATERIALIZED (
    SELECT * FROM budget_window
    WHERE id IN (SELECT window_id FROM b) AND NOT EXISTS (SELECT FROM b WHERE window_id IS NULL)
    ORDER BY id FOR NO KEY UPDATE),
payer AS MATERIALIZED (SELECT {IS_NOTIONAL} AS is_notional)
SELECT b.id AS budget_id, b.generation, b.period, b.timezone, b.window_id, payer.is_notional,
    coalesce(%(max_cost_usd)s::numeric, b.reserve_usd) AS amount,
    {IS_HOLDING} AND coalesce({
    lacks_room(
        "coalesce(%(max_cost_usd)s::numeric, b.reserve_usd)",
        is_notional="payer.is_notional",
        is_counted="(%(spell)s > 0)",
    )
}, false) AS is_full
FROM b CROSS JOIN payer LEFT JOIN w ON w.id = b.window_id
ORDER BY b.id
"""

# Inserts the row of each window, in the order of the budgets' ids, so that two transactions that insert several can't
# wait for each other. A window begins no earlier than the former one ended, even if the rules of its time zone have
# changed meanwhile.
_BEGIN = """
INSERT INTO budget_window (id, environment_id, budget_id, generation, starts_at, ends_at, spent_usd, reserved_usd,
    notional_spent_usd, notional_reserved_usd, runs, changes, is_changed, noticed_pct)
SELECT n.id, %(environment_id)s, n.budget_id, n.generation,
    greatest(n.starts_at, (
        SELECT max(former.ends_at) FROM budget_window former
        WHERE former.budget_id = n.budget_id AND former.generation = n.generation
            AND former.ends_at <= %(moment)s)),
    n.ends_at, 0, 0, 0, 0, 0, 0, true, 0
FROM unnest(%(ids)s::uuid[], %(budget_ids)s::uuid[], %(generations)s::int[], %(begins)s::timestamptz[],
    %(ends)s::timestamptz[]) AS n (id, budget_id, generation, starts_at, ends_at)
ORDER BY n.budget_id
ON CONFLICT (budget_id, generation, starts_at, environment_id) DO NOTHING
"""

# A run that was claimed before is in a window's number of runs already, if it has a reservation of the same budget.
_RESERVE = """
WITH n AS (SELECT * FROM unnest(%(window_ids)s::uuid[], %(amounts)s::numeric[]) AS n (window_id, amount)),
counted AS (
    UPDATE budget_window w SET reserved_usd = w.reserved_usd + n.amount,
        runs = w.runs + CASE WHEN %(spell)s > 0 AND EXISTS (
            SELECT FROM run_reservation x JOIN budget_window o ON o.id = x.window_id
            WHERE x.run_id = %(run_id)s AND o.budget_id = w.budget_id) THEN 0 ELSE 1 END,
        changes = w.changes + 1, is_changed = true,
        notional_reserved_usd = w.notional_reserved_usd + CASE WHEN %(is_notional)s THEN n.amount ELSE 0 END
    FROM n WHERE w.id = n.window_id)
INSERT INTO run_reservation AS x (
    run_id, window_id, environment_id, amount_usd, is_cap, is_estimate, is_notional, spell)
SELECT %(run_id)s, n.window_id, %(environment_id)s, n.amount, %(is_cap)s, false, %(is_notional)s, %(spell)s FROM n
ON CONFLICT (run_id, window_id) DO UPDATE SET amount_usd = excluded.amount_usd, is_cap = excluded.is_cap,
    is_estimate = false, is_notional = excluded.is_notional, spell = excluded.spell,
    earlier_usd = x.earlier_usd + coalesce(x.cost_usd, 0), cost_usd = NULL, settled_at = NULL
"""


def reserve(run: Row) -> bool:
    """Reserves the cost of a run that this transaction has claimed, in all budgets that cover it. Returns False if a
    budget that holds runs back has no room; the claim must then be rolled back. Each spell of a run reserves anew. It
    takes two statements, or six for a window's first run. The windows stay locked, so that two claims can't both take
    the last room.
    """
    params = {
        "environment_id": run["environment_id"],
        "trigger_id": run["trigger_id"],
        "worker_id": run["worker_id"],
        "max_cost_usd": run["max_cost_usd"],
        "spell": run["spells"],
        "now": run["claimed_at"],
    }
    budgets = fetch_all(_LOCK, params)
    while missing := _without_window(budgets):
        with transaction.atomic():
            _begin_windows(missing, run["environment_id"], run["claimed_at"])
            budgets = fetch_all(_LOCK, params)
            # A user has changed a budget meanwhile. The inserted rows are undone, because all windows must be inserted
            # together, in one order.
            transaction.set_rollback(bool(_without_window(budgets)))
    if any(budget["is_full"] for budget in budgets):
        return False
    if budgets:
        execute(
            _RESERVE,
            {
                "run_id": run["id"],
                "environment_id": run["environment_id"],
                "spell": run["spells"],
                "window_ids": [budget["window_id"] for budget in budgets],
                "amounts": [budget["amount"] for budget in budgets],
                "is_cap": run["max_cost_usd"] is not None,
                "is_notional": budgets[0]["is_notional"],
            },
        )
    return True


def _without_window(budgets: list[Row]) -> list[Row]:
    return [budget for budget in budgets if budget["window_id"] is None]


def _begin_windows(budgets: list[Row], environment_id: UUID, moment: datetime) -> None:
    periods = [period_around(moment, each["period"], each["timezone"]) for each in budgets]
    execute(
        _BEGIN,
        {
            "environment_id": environment_id,
            "moment": moment,
            "ids": [new_id() for _ in budgets],
            "budget_ids": [budget["budget_id"] for budget in budgets],
            "generations": [budget["generation"] for budget in budgets],
            "begins": [begin for begin, _ in periods],
            "ends": [end for _, end in periods],
        },
    )
