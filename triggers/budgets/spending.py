"""Keeps the runs that budgets cover within their limits: a claim reserves money, and the end of a run settles it.

The conditions are SQL about a budget `b` and its window `w`, if there is one. If nobody reports the cost of a run that
was started, the reserved amount counts as its cost until a late report comes.
"""

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.clocks import zone_of
from pipedai.ids import new_id
from pipedai.sql import NOW, Row, execute, fetch_all
from pipedai.wakeups import wake_workers
from triggers.models import Budget

# The SQL condition that the budget covers the runs of the trigger `t`.
_COVERS = """b.environment_id = t.environment_id AND b.deleted_at IS NULL
    AND (b.trigger_id IS NULL OR b.trigger_id = t.id)"""
# The budget's window that contains the present time: the newest that has begun, if it is not over. It is found alone,
# because a budget has hundreds of windows.
_PRESENT = f"""LATERAL (
    SELECT * FROM budget_window
    WHERE budget_id = b.id AND generation = b.generation AND starts_at <= {NOW}
    ORDER BY starts_at DESC LIMIT 1) w ON w.ends_at > {NOW}"""

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
    """Returns the SQL condition that the budget has no room for a run that would reserve `amount`. A limit that is used
    up has no room for any run, but a limit of the number of runs lets a run go on that `is_counted` already.
    """
    return f"""((coalesce(w.runs, 0) >= b.limit_runs AND NOT {is_counted})
        OR ((b.count_notional OR NOT {is_notional})
            AND ({USED} >= b.limit_usd OR {USED} + {amount} > b.limit_usd)))"""


# What a run of the trigger `t` would reserve in the budget.
AMOUNT = "coalesce(t.max_cost_usd, b.reserve_usd)"
IS_HOLDING = "b.when_reached <> 'notify'"

# The budgets with their present windows.
BUDGETS = f"budget b LEFT JOIN {_PRESENT}"
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
SELECT b.id, b.name, b.period, b.timezone, b.limit_usd, b.limit_runs, b.when_reached,
    {AMOUNT} AS amount, {SPENT} AS spent, {RESERVED} AS reserved, w.ends_at, {NOW} AS now,
    coalesce(coalesce(w.runs, 0) >= b.limit_runs AND NOT {IS_COUNTED}, false) AS runs_are_used_up,
    -- Whether the limit would be too small for the run even if nothing were used.
    coalesce(b.limit_runs = 0 AND NOT {IS_COUNTED}, false)
        OR ((b.count_notional OR NOT {is_notional})
            AND coalesce(b.limit_usd = 0 OR {AMOUNT} > b.limit_usd, false)) AS never_has_room
FROM run r JOIN trigger t ON t.id = r.trigger_id CROSS JOIN {BUDGETS}
WHERE r.id = %(run_id)s AND {_COVERS} AND {IS_HOLDING}
    AND {lacks_room(AMOUNT, is_notional=is_notional, is_counted=IS_COUNTED)}
ORDER BY b.id
"""


# The budgets that have no room for a run if a certain worker takes it. The oldest budget comes first.
_REACHED = _reached(IS_NOTIONAL)
# The budgets that have no room for a run whichever worker takes it.
_REACHED_FOR_ALL = _reached(MAY_BE_NOTIONAL)

# The earliest end of those present windows that may hold back runs of the worker's environment.
NEXT_WINDOW = f"""(SELECT min(w.ends_at) FROM budget b JOIN {_PRESENT}
    WHERE b.environment_id = (SELECT environment_id FROM worker WHERE id = %(worker_id)s)
        AND b.deleted_at IS NULL AND {IS_HOLDING})"""


def reached_budgets(
    *, run_id: UUID, worker_id: UUID | None, now: datetime | None = None
) -> list[Row]:
    """Returns the budgets that keep a worker from taking a queued run. Each has `amount`, which the run would reserve,
    `ends_at` of its present window, `runs_are_used_up` (whether the limit of the number of runs is what holds the run
    back), `never_has_room` (whether the limit is too small for the run), and `now`.
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


def period_around(moment: datetime, period: str, timezone: str) -> tuple[datetime, datetime]:
    """Returns the beginning and the end of the day or month of `moment`, as UTC. A day begins when the zone's clocks
    first show its midnight, or skip it, so it has 23 to 25 hours. A zone that is unknown counts as UTC.
    """
    zone = zone_of(timezone)
    day = moment.astimezone(zone).date()
    first = day.replace(day=1) if period == Budget.Period.MONTH else day
    following = _following(first, period)
    if moment >= midnight(following, zone):
        # The clocks went back over midnight, and so show the former date once more after the new day has begun.
        first, following = following, _following(following, period)
    return midnight(first, zone), midnight(following, zone)


def _following(first: date, period: str) -> date:
    if period == Budget.Period.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=1)


def midnight(day: date, zone: tzinfo) -> datetime:
    """Returns when the zone's clocks first show the midnight with which the day begins, or skip it, as UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


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
            # A user has changed a budget meanwhile, so another window lacks a row. The inserted rows are undone,
            # because all windows must be inserted together, in one order.
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


# What the last spell of a run `r` cost; NULL if nobody has reported it. `r.cost_usd` is the cost of the first spell,
# but of a run with several spells it is their sum. A run that its worker ended before its start has cost nothing.
_COST = """coalesce(CASE WHEN x.spell = 0 THEN r.cost_usd END, %(told_cost)s::numeric,
    CASE WHEN r.ended_by = 'worker' AND r.started_at IS NULL THEN 0 END)"""

# What the window `w` had used before the statement below settled it.
_USED_BEFORE = "w.spent_usd + w.reserved_usd + sums.released - sums.spent"
# The most that a run may reserve in the budget `b` because of its trigger's `max_cost_usd`. A run with this cap may
# have been held back even if the budget had room for runs like those that ended.
_LARGEST_CAP = """(SELECT max(t.max_cost_usd) FROM trigger t
        WHERE t.environment_id = b.environment_id AND t.deleted_at IS NULL
            AND (b.trigger_id IS NULL OR t.id = b.trigger_id))"""

# Settles the reservations of runs that ended or wait, and the windows with them. A reservation that was settled before
# is settled again if a cost is reported that differs; an estimate never replaces a reported cost. A run that found
# nothing new is taken out of the number of runs. The caller has locked the runs, so that no other transaction settles
# them; this locks the windows in the order of their ids. It returns the environments in which a budget that was nearly
# used up has room again.
_SETTLE = f"""
WITH due AS MATERIALIZED (
    SELECT x.run_id, x.window_id, x.is_notional, x.amount_usd, x.cost_usd AS old,
        coalesce(cost.reported, x.amount_usd) AS new, cost.reported IS NULL AS is_estimate, r.nothing_new
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
        max(amount_usd) AS largest, count(*) FILTER (WHERE nothing_new) AS uncounted
    FROM due GROUP BY window_id),
locked AS MATERIALIZED (
    SELECT id FROM budget_window WHERE id IN (SELECT window_id FROM sums) ORDER BY id FOR NO KEY UPDATE),
settled AS (
    UPDATE run_reservation x SET cost_usd = due.new, is_estimate = due.is_estimate, settled_at = {NOW}
    FROM due WHERE x.run_id = due.run_id AND x.window_id = due.window_id)
UPDATE budget_window w SET changes = w.changes + 1, is_changed = true,
    spent_usd = w.spent_usd + sums.spent, reserved_usd = w.reserved_usd - sums.released,
    notional_spent_usd = w.notional_spent_usd + sums.notional_spent,
    notional_reserved_usd = w.notional_reserved_usd - sums.notional_released, runs = w.runs - sums.uncounted
FROM locked JOIN sums ON sums.window_id = locked.id, budget b
WHERE w.id = locked.id AND b.id = w.budget_id
RETURNING w.environment_id,
    b.when_reached <> 'notify' AND w.ends_at > {NOW}
    AND (coalesce(sums.uncounted > 0 AND w.runs + sums.uncounted >= b.limit_runs, false)
        OR sums.spent < sums.released AND (
            coalesce({_USED_BEFORE} + greatest(b.reserve_usd, sums.largest) > b.limit_usd, false)
            OR coalesce({_USED_BEFORE} + {_LARGEST_CAP} > b.limit_usd, false))) AS has_room_again
"""

_WAITING = """
SELECT w.id FROM worker w
WHERE w.environment_id = ANY(%(environment_ids)s) AND (EXISTS (
    SELECT FROM run r
    WHERE r.environment_id = ANY(%(environment_ids)s) AND r.worker_id = w.id AND r.status = 'queued') OR EXISTS (
    SELECT FROM pool_member m JOIN run r ON r.pool_id = m.pool_id
    WHERE r.environment_id = ANY(%(environment_ids)s) AND m.worker_id = w.id AND r.status = 'queued'))
"""


def settle_reservations(
    run_ids: Collection[UUID], *, told_cost: Decimal | None = None, now: datetime | None = None
) -> None:
    """Settles these runs, which ended or wait. It must be the last to take locks in the transaction. `told_cost` is
    what a worker reported as the cost of the last spell, even too late to be the outcome; the row of a run with one
    spell may have the cost instead. If a budget has room again, it wakes the environment's workers with queued runs.
    """
    params = {"run_ids": list(run_ids), "told_cost": told_cost, "now": now}
    windows = fetch_all(_SETTLE, params)
    wake_held_back({row["environment_id"] for row in windows if row["has_room_again"]})


def wake_held_back(environment_ids: Collection[UUID]) -> None:
    """Makes the polls of workers with queued runs, their own or their pools', ask again."""
    if environment_ids:
        rows = fetch_all(_WAITING, {"environment_ids": list(environment_ids)})
        wake_workers([row["id"] for row in rows])
