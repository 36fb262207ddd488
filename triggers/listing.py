"""Orders the list of triggers, and reads the last runs of those on a page."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import BooleanField, Case, DecimalField, IntegerField, Q, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Collate, Lower

from pipedai.sql import Row, database_now, fetch_all
from triggers.budgets.spending import period_around
from triggers.models import Budget
from triggers.models.run import duration_ms
from triggers.states import TERMINAL, Health

# At most this many triggers are counted.
MOST_COUNTED: Final = 5_000
# This many of a trigger's last runs are shown.
RECENT_RUNS: Final = 30
SORTS: Final = ("attention", "name", "nextDueAt", "-costThisMonth")

# The SQL condition that all workers that may take the trigger's runs have reached their usage limits. No subquery
# depends on the trigger, so PostgreSQL reads the workers and the pools once.
_LIMITED = (
    "SELECT id FROM worker WHERE environment_id = %s AND limited_until > statement_timestamp()"
)
_AT_LIMIT = f"""trigger.enabled AND coalesce(trigger.worker_id, trigger.pool_id) IS NOT NULL
    AND (trigger.worker_id IS NULL OR trigger.worker_id IN ({_LIMITED}))
    AND (trigger.pool_id IS NULL OR trigger.pool_id IN (
        SELECT m.pool_id FROM pool_member m JOIN worker w ON w.id = m.worker_id
        WHERE m.environment_id = %s AND w.disabled_at IS NULL
        GROUP BY m.pool_id HAVING bool_and(coalesce(w.limited_until > statement_timestamp(), false))))"""  # noqa: S608

# The SQL for what the trigger's runs that ended since a time have cost. PostgreSQL works out the sums of all triggers
# once, from the index `run_ended_figures` alone.
_COST = """coalesce(((
    SELECT jsonb_object_agg(trigger_id, cost_usd) FROM (
        SELECT trigger_id, sum(cost_usd) AS cost_usd FROM run
        WHERE environment_id = %s AND ended_at >= %s AND ended_at IS NOT NULL GROUP BY trigger_id) r
) ->> trigger.id::text)::numeric, 0)"""


# A trigger without a due time is sorted as if it came due at this time, after all others.
_NEVER = datetime.max.replace(tzinfo=UTC)


def sort_keys(sort: str, environment_id: UUID, *, now: datetime | None = None) -> list[Any]:
    """Returns the expressions by which one of SORTS orders the triggers of an environment."""
    due = Coalesce("next_run_at", Value(_NEVER))
    if sort == "nextDueAt":
        return [due]
    if sort == "name":
        return [Collate(Lower("name"), "C")]
    if sort == "attention":
        at_limit = RawSQL(_AT_LIMIT, [environment_id] * 2, output_field=BooleanField())  # noqa: S611 - our own text
        urgency = Case(
            When(health=Health.FAILING, then=0),
            When(health=Health.LATE, then=1),
            When(at_limit, then=2),
            default=3,
            output_field=IntegerField(),
        )
        return [urgency, due]
    month, _ = period_around(now or database_now(), Budget.Period.MONTH, "UTC")
    return [RawSQL(f"-{_COST}", [environment_id, month], output_field=DecimalField())]  # noqa: S611 - our own text


# The kinds of triggers that a list counts, as conditions on a row with the column `health`.
KINDS: Final = {
    "failing": Q(health=Health.FAILING),
    "late": Q(health=Health.LATE),
    "disabled": Q(enabled=False),
}


_OF_STATE = f"""(
    SELECT * FROM run WHERE trigger_id = t.id AND status = '{{}}' AND ended_at IS NOT NULL
    ORDER BY ended_at DESC, id DESC LIMIT {RECENT_RUNS})"""  # noqa: S608
# Reads each trigger's last runs by merging the last ones of each end state, which the index has in order.
_RECENT = f"""
SELECT t.id AS of_id, r.id, r.status, r.nothing_new, r.started_at, r.ended_at, r.active_ms
FROM unnest(%(ids)s::uuid[]) t (id) CROSS JOIN LATERAL (
    {" UNION ALL ".join(map(_OF_STATE.format, TERMINAL))}
    ORDER BY ended_at DESC, id DESC LIMIT {RECENT_RUNS}) r
ORDER BY r.ended_at, r.id
"""  # noqa: S608

# Reads the last runs of revisions. Nearly all runs of a revision were queued before the next revision was made, so the
# index of the trigger's runs has them next to each other and in order. A few later retries are left out.
_OF_REVISIONS = f"""
SELECT r.* FROM unnest(%(ids)s::uuid[]) t (id) JOIN trigger_revision v ON v.id = t.id
CROSS JOIN LATERAL (
    SELECT min(created_at) AS at FROM trigger_revision
    WHERE trigger_id = v.trigger_id AND created_at > v.created_at) next
CROSS JOIN LATERAL (
    SELECT revision_id AS of_id, id, status, nothing_new, started_at, ended_at, active_ms FROM run
    WHERE trigger_id = v.trigger_id AND queued_at >= v.created_at AND queued_at < coalesce(next.at, 'infinity')
    ORDER BY queued_at DESC, id DESC LIMIT {RECENT_RUNS}) r
WHERE r.ended_at IS NOT NULL AND r.of_id = v.id
ORDER BY r.ended_at, r.id
"""  # noqa: S608


def with_recent_runs(rows: list[Row]) -> list[Row]:
    """Adds `recent` to each trigger: its last RECENT_RUNS ended runs, the newest last. It takes one query."""
    return _with_recent(_RECENT, rows)


def with_runs_of_revisions(rows: list[Row]) -> list[Row]:
    """Adds `recent` to each revision: those of its last RECENT_RUNS runs that have ended, the newest last."""
    return _with_recent(_OF_REVISIONS, rows)


def _with_recent(statement: str, rows: list[Row]) -> list[Row]:
    recent: dict[UUID, list[Row]] = {row["id"]: [] for row in rows}
    for run in fetch_all(statement, {"ids": [*recent]}) if rows else ():
        recent[run["of_id"]].append({**run, "duration_ms": duration_ms(run)})
    return [{**row, "recent": recent[row["id"]]} for row in rows]
