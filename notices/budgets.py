"""Finds out in the scheduler which budgets have reached one of their percentages.

A window stores the highest percentage of which people were told. The scheduler looks only at windows that have changed
or ended.
"""

from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from uuid import UUID

from notices.incidents import Finding, change_incidents
from notices.states import Kind
from pipedai.api.renderers import counted, dollars
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_row
from pipedai.turns import due_rows
from triggers.budgets.spending import AMOUNT, IS_HOLDING, SPENT
from triggers.explain.answers import zoned_words
from triggers.models import Budget

# Takes the lock that lets only one scheduler at a time look for reached budgets, so that no incident is opened twice.
_TAKE_TURN = "SELECT pg_try_advisory_xact_lock(hashtext('find_reached_budgets')) AS is_ours"

# The windows that have changed, and those that have ended since people were told of them. They are not locked, because
# claims and ends of runs lock them after everything else.
_TURNS = (
    due_rows("budget_window", waits="is_changed", order="id", is_due=False, lock=False),
    due_rows("budget_window", waits="noticed_pct > 0", order="ends_at", lock=False),
)

# Reads what decides about each of these windows. A run that looks for something new first counts only once it has
# ended, since it may find nothing. `least_amount` is the least amount that any run would reserve. It is read only if it
# can matter, and once for all budgets of an environment. `is_followed` says whether the budget's open incident is
# already about its present window. Such an incident stays open.
_READ = f"""
WITH looked_at AS MATERIALIZED (
    SELECT w.id, w.environment_id, w.budget_id, w.ends_at, w.changes, w.noticed_pct, {SPENT} AS spent,
        w.runs - CASE WHEN b.limit_runs IS NULL THEN 0 ELSE (
            SELECT count(*) FROM run_reservation x JOIN run r ON r.id = x.run_id
            WHERE x.window_id = w.id AND x.settled_at IS NULL AND r.looks) END AS runs,
        b.name, b.timezone, b.limit_usd, b.limit_runs, b.notice_at_pct, b.when_reached, b.trigger_id, b.reserve_usd,
        b.deleted_at IS NULL AND w.generation = b.generation AS is_live, w.ends_at <= {NOW} AS is_over,
        w.noticed_pct > 0 AND EXISTS (
            SELECT FROM budget_window other
            WHERE other.budget_id = w.budget_id AND other.generation = b.generation AND other.id <> w.id
                AND other.starts_at > {NOW} - interval '32 days' AND other.ends_at > {NOW} AND other.noticed_pct > 0)
            AS is_followed,
        {IS_HOLDING} AND {SPENT} > 0 AND {SPENT} < b.limit_usd AND 100 = ANY(b.notice_at_pct) AS may_lack_room
    FROM budget_window w JOIN budget b ON b.id = w.budget_id
    WHERE w.id = ANY(%(ids)s)),
cheapest AS MATERIALIZED (
    SELECT e.environment_id, t.* FROM (
        SELECT DISTINCT environment_id FROM looked_at WHERE may_lack_room AND trigger_id IS NULL) e
    CROSS JOIN LATERAL (
        SELECT min(max_cost_usd) AS max_cost_usd, bool_or(max_cost_usd IS NULL) AS has_unlimited FROM trigger
        WHERE environment_id = e.environment_id AND deleted_at IS NULL AND enabled) t)
SELECT b.*, CASE
    WHEN may_lack_room AND trigger_id IS NULL THEN (
        SELECT least(t.max_cost_usd, CASE WHEN has_unlimited THEN b.reserve_usd END) FROM cheapest t
        WHERE t.environment_id = b.environment_id)
    WHEN may_lack_room THEN (
        SELECT {AMOUNT} FROM trigger t
        WHERE t.id = b.trigger_id AND t.environment_id = b.environment_id AND t.deleted_at IS NULL AND t.enabled)
    END AS least_amount
FROM looked_at b ORDER BY b.id
"""  # noqa: S608

# Stores the percentage of which people were told. A window that has changed since it was read stays marked as changed,
# so that the scheduler looks at it again.
_WRITE = """
WITH n AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(percentages)s::int[], %(changes)s::bigint[]) AS n (id, pct, changes)),
locked AS (
    SELECT w.id FROM budget_window w JOIN n ON n.id = w.id ORDER BY w.id FOR NO KEY UPDATE OF w)
UPDATE budget_window w SET noticed_pct = n.pct, is_changed = w.changes <> n.changes
FROM n JOIN locked ON locked.id = n.id WHERE w.id = n.id
"""


def find_reached_budgets(*, limit: int = 100, now: datetime | None = None) -> int:
    """Looks at up to `limit` changed windows of budgets and at as many ended ones. Returns how many it looked at. At
    each higher percentage it closes the open incident and opens another, so that people are told of both.
    """
    return sum(turns.take(partial(_look_at, now=now), limit=limit, now=now) for turns in _TURNS)


def _look_at(windows: list[Row], now: datetime | None) -> int:
    if not fetch_row(_TAKE_TURN, {})["is_ours"]:
        return 0
    rows = fetch_all(_READ, {"ids": [row["id"] for row in windows], "now": now})
    reached = {row["id"]: _reached(row) for row in rows}
    _tell(rows, reached, now)
    params = {
        "ids": [row["id"] for row in rows],
        "percentages": [reached[row["id"]] for row in rows],
        "changes": [row["changes"] for row in rows],
    }
    execute(_WRITE, params)
    return len(rows)


def _tell(rows: list[Row], reached: dict[UUID, int], now: datetime | None) -> None:
    begun = {
        row["budget_id"]: _finding(row) for row in rows if reached[row["id"]] > row["noticed_pct"]
    }
    ended = {
        row["budget_id"]: row
        for row in rows
        if row["noticed_pct"]
        and not row["is_followed"]
        and not reached[row["id"]]
        and row["budget_id"] not in begun
    }
    recovered = [id_ for id_, row in ended.items() if row["is_live"]]
    withdrawn = [id_ for id_, row in ended.items() if not row["is_live"]]
    # The incident about a lower percentage is closed first, because a budget has at most one open incident.
    change_incidents(Kind.BUDGET_REACHED, withdrawn=list(begun), now=now)
    change_incidents(
        Kind.BUDGET_REACHED,
        begun=list(begun.values()),
        recovered=recovered,
        withdrawn=withdrawn,
        now=now,
    )


def _reached(row: Row) -> int:
    if row["is_over"] or not row["is_live"]:
        return 0
    pct, _ = _use(row)
    return max((each for each in row["notice_at_pct"] if each <= pct), default=0)


def _use(row: Row) -> tuple[Decimal, str]:
    """Returns how much of its limits a window has used: the higher of the two percentages, and a sentence about it. If
    no run fits into the rest, the percentage is 100, though a little of the limit may be left.
    """
    uses = [(Decimal(0), "")]
    if (limit := row["limit_usd"]) is not None:
        spent, least = row["spent"], row["least_amount"]
        pct = _percent(spent, limit)
        words = f"{dollars(spent)} of {dollars(limit)} is spent"
        if least is not None and spent + least > limit:
            pct, words = max(pct, Decimal(100)), f"{words}, and no run has room any more"
        uses.append((pct, words))
    if (limit := row["limit_runs"]) is not None:
        pct = _percent(Decimal(row["runs"]), Decimal(limit))
        uses.append((pct, f"{row['runs']:,} of {counted(limit, 'run')} have been claimed"))
    return max(uses, key=itemgetter(0))


def _percent(used: Decimal, limit: Decimal) -> Decimal:
    if limit:
        return 100 * used / limit
    return Decimal(100) if used else Decimal(0)


def _finding(row: Row) -> Finding:
    _, words = _use(row)
    then = {
        Budget.WhenReached.HOLD: "Runs without room wait until then.",
        Budget.WhenReached.REJECT: "Runs without room wait until then, and requests for more are refused.",
    }.get(row["when_reached"], "No run is held back.")
    ends = zoned_words(row["ends_at"], row["timezone"])
    message = f"{words[0].upper()}{words[1:]} in the window that ends at {ends}. {then}"
    return Finding(row["environment_id"], row["budget_id"], row["name"], message)
