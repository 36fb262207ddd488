"""Settles what was reserved for runs when they end: what they cost counts as spent instead (SPEC §17).

A run that was started and whose cost nobody tells counts as what was reserved, until a late report.
"""

from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from pipedai.sql import NOW, fetch_all
from pipedai.wakeups import wake_workers

# What the last spell of a run `r` cost, or NULL if nobody has told. `cost_usd` has that of a first spell, and the sum
# of several. A run that its worker ended before its start has cost nothing.
_COST = """coalesce(CASE WHEN x.spell = 0 THEN r.cost_usd END, %(told_cost)s::numeric,
    CASE WHEN r.ended_by = 'worker' AND r.started_at IS NULL THEN 0 END)"""

# What the window `w` had used before the statement below settled it.
_USED_BEFORE = "w.spent_usd + w.reserved_usd + sums.released - sums.spent"
# The most that a run may reserve in the budget `b` because of its trigger's `max_cost_usd`. A waiting run may need more
# room than those that end.
_LARGEST_CAP = """(SELECT max(t.max_cost_usd) FROM trigger t
        WHERE t.environment_id = b.environment_id AND t.deleted_at IS NULL
            AND (b.trigger_id IS NULL OR t.id = b.trigger_id))"""

# Settles the reservations of runs that ended or wait, and the windows with them. A reservation that was settled before
# is settled anew if the cost is told and has changed; an estimate never takes the place of a cost. The caller has
# locked the runs, so that no other transaction settles them; the windows are locked in the order of their ids. It
# returns the environments in which a budget that was nearly used up has room again.
_SETTLE = f"""
WITH due AS MATERIALIZED (
    SELECT x.run_id, x.window_id, x.is_notional, x.amount_usd, x.cost_usd AS old,
        coalesce(cost.reported, x.amount_usd) AS new, cost.reported IS NULL AS is_estimate
    FROM run r JOIN run_reservation x ON x.run_id = r.id CROSS JOIN LATERAL (SELECT {_COST} AS reported) cost
    WHERE r.id = ANY(%(run_ids)s) AND (r.ended_at IS NOT NULL OR r.status = 'waiting')
        AND x.spell = CASE WHEN r.status = 'waiting' THEN r.spells - 1 ELSE r.spells END
        AND CASE WHEN cost.reported IS NULL THEN x.settled_at IS NULL
            ELSE (x.cost_usd, x.is_estimate) IS DISTINCT FROM (cost.reported, false) END),
sums AS (
    SELECT window_id, sum(new - coalesce(old, 0)) AS spent,
        coalesce(sum(new - coalesce(old, 0)) FILTER (WHERE is_notional), 0) AS notional_spent,
        coalesce(sum(amount_usd) FILTER (WHERE old IS NULL), 0) AS released,
        coalesce(sum(amount_usd) FILTER (WHERE old IS NULL AND is_notional), 0) AS notional_released,
        max(amount_usd) AS largest
    FROM due GROUP BY window_id),
locked AS MATERIALIZED (
    SELECT id FROM budget_window WHERE id IN (SELECT window_id FROM sums) ORDER BY id FOR NO KEY UPDATE),
settled AS (
    UPDATE run_reservation x SET cost_usd = due.new, is_estimate = due.is_estimate, settled_at = {NOW}
    FROM due WHERE x.run_id = due.run_id AND x.window_id = due.window_id)
UPDATE budget_window w SET changes = w.changes + 1, is_changed = true,
    spent_usd = w.spent_usd + sums.spent, reserved_usd = w.reserved_usd - sums.released,
    notional_spent_usd = w.notional_spent_usd + sums.notional_spent,
    notional_reserved_usd = w.notional_reserved_usd - sums.notional_released
FROM locked JOIN sums ON sums.window_id = locked.id, budget b
WHERE w.id = locked.id AND b.id = w.budget_id
RETURNING w.environment_id,
    b.when_reached <> 'notify' AND sums.spent < sums.released AND w.ends_at > {NOW}
    AND (coalesce({_USED_BEFORE} + greatest(b.reserve_usd, sums.largest) > b.limit_usd, false)
        OR coalesce({_USED_BEFORE} + {_LARGEST_CAP} > b.limit_usd, false)) AS has_room_again
"""

_WAITING = """
SELECT w.id FROM worker w
WHERE w.environment_id = ANY(%(environment_ids)s) AND (EXISTS (
    SELECT FROM run r
    WHERE r.environment_id = ANY(%(environment_ids)s) AND r.worker_id = w.id AND r.status = 'queued') OR EXISTS (
    SELECT FROM pool_member m JOIN run r ON r.pool_id = m.pool_id
    WHERE r.environment_id = ANY(%(environment_ids)s) AND m.worker_id = w.id AND r.status = 'queued'))
"""

# Finds what an older release has left: ended runs whose reservations it did not settle, and runs that count with an
# estimate although a late report has told their cost. The second part looks back an hour, since releases run side by
# side for minutes.
_LEFT = f"""
(SELECT x.run_id FROM run_reservation x JOIN run r ON r.id = x.run_id
    WHERE x.settled_at IS NULL AND r.ended_at IS NOT NULL LIMIT %(limit)s)
UNION
(SELECT x.run_id FROM run_reservation x JOIN run r ON r.id = x.run_id
    WHERE x.is_estimate AND x.spell = 0 AND x.settled_at > {NOW} - interval '1 hour' AND r.cost_usd IS NOT NULL
    LIMIT %(limit)s)
"""
_LOCK_RUNS = "SELECT id FROM run WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"


def settle_reservations(
    run_ids: Collection[UUID], *, told_cost: Decimal | None = None, now: datetime | None = None
) -> None:
    """Settles these runs, which ended or wait, as the last that the transaction locks. `told_cost` is what a worker
    told of the cost of the last spell, also too late to be the outcome; the row of a run of one spell may have it. If a
    budget has room again, the environment's workers with queued runs are woken.
    """
    params = {"run_ids": list(run_ids), "told_cost": told_cost, "now": now}
    windows = fetch_all(_SETTLE, params)
    wake_held_back({row["environment_id"] for row in windows if row["has_room_again"]})


def wake_held_back(environment_ids: Collection[UUID]) -> None:
    """Makes the polls of workers with queued runs, their own or their pools', ask again."""
    if environment_ids:
        rows = fetch_all(_WAITING, {"environment_ids": list(environment_ids)})
        wake_workers([row["id"] for row in rows])


def settle_left_over(*, limit: int = 100, now: datetime | None = None) -> int:
    left = fetch_all(_LEFT, {"limit": limit, "now": now})
    if not left:
        return 0
    with transaction.atomic():
        ids = [row["id"] for row in fetch_all(_LOCK_RUNS, {"ids": [row["run_id"] for row in left]})]
        settle_reservations(ids, now=now)
    return len(ids)
