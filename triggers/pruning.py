"""Removes old runs and the rows that refer to them, if the operator has set their retention, and old run events.

Unfinished runs and those with pending deliveries stay. A run goes with its retries, which show the result. Run events
are in daily partitions, which are made ahead of time and dropped as a whole.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.retention import Batch, InUse, Order, partitions_before, remove, until_short
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_one

_ENVIRONMENTS = "SELECT id FROM environment ORDER BY id"

# Reads a page of an environment's ended runs, the oldest first, by the index `run_ended_figures`.
_PAGE = """
SELECT id, ended_at FROM run
WHERE environment_id = %(environment_id)s AND ended_at IS NOT NULL
    AND ended_at < %(before)s AND (ended_at, id) > (%(ended_at)s::timestamptz, %(id)s::uuid)
ORDER BY ended_at, id LIMIT %(limit)s
"""

# Finds the runs to remove. A chain is a run with its retries. It is found by its last run, which no retry follows. The
# earlier runs need no lock, since every pruner gets to them through the last run, which is locked.
_CHAINS = """
WITH RECURSIVE chain AS (
    SELECT r.id AS last, r.id, r.retry_of_id, r.ended_at FROM run r
    WHERE r.id = ANY(%(ids)s) AND NOT EXISTS (SELECT FROM run retry WHERE retry.retry_of_id = r.id)
    UNION ALL
    SELECT chain.last, r.id, r.retry_of_id, r.ended_at FROM chain JOIN run r ON r.id = chain.retry_of_id)
SELECT unnest(array_agg(id)) AS id FROM chain
GROUP BY last
HAVING bool_and(ended_at < %(before)s)
    AND NOT bool_or(EXISTS (SELECT FROM delivery d WHERE d.run_id = chain.id AND d.status = 'pending'))
"""

# The statements that remove runs and what refers to them. Rows that refer to others come first, because of the foreign
# keys. One statement removes all runs, since runs refer to each other.
_REMOVE = {
    "idempotencyKeys": "DELETE FROM idempotency_key WHERE run_id = ANY(%(ids)s)",
    "ticks": "DELETE FROM tick WHERE run_id = ANY(%(ids)s)",
    "attempts": "DELETE FROM delivery_attempt a USING delivery d"
    " WHERE d.run_id = ANY(%(ids)s) AND a.delivery_id = d.id",
    "deliveries": "DELETE FROM delivery WHERE run_id = ANY(%(ids)s)",
    "texts": "DELETE FROM run_text WHERE run_id = ANY(%(ids)s)",
    "results": "DELETE FROM run_result WHERE run_id = ANY(%(ids)s)",
    "events": "DELETE FROM run_event_batch WHERE run_id = ANY(%(ids)s)",
    "eventLogs": "DELETE FROM run_event_log WHERE run_id = ANY(%(ids)s)",
    "runs": "DELETE FROM run WHERE id = ANY(%(ids)s)",
}

_LOCK = " FOR UPDATE SKIP LOCKED"


# Finds an environment's old ticks that made no run, trigger by trigger.
def _skipped_ticks(lock: str) -> str:
    return f"""
SELECT old.id FROM trigger CROSS JOIN LATERAL (
    SELECT id FROM tick
    WHERE trigger_id = trigger.id AND tick_at < %(before)s AND last_tick_at < %(before)s AND run_id IS NULL
    ORDER BY tick_at LIMIT %(limit)s{lock}) old
WHERE trigger.environment_id = %(environment_id)s LIMIT %(limit)s
"""


def _ended_deliveries(lock: str) -> str:
    return f"""
SELECT old.id FROM trigger CROSS JOIN LATERAL (
    SELECT id FROM delivery
    WHERE trigger_id = trigger.id AND created_at < %(before)s AND status <> 'pending'
        AND (run_id IS NULL OR NOT %(of_no_run)s)
    ORDER BY created_at, id LIMIT %(limit)s{lock}) old
WHERE trigger.environment_id = %(environment_id)s LIMIT %(limit)s
"""


_REMOVE_TICKS = {"ticks": "DELETE FROM tick WHERE id = ANY(%(ids)s)"}
_REMOVE_DELIVERIES = {
    "attempts": "DELETE FROM delivery_attempt WHERE delivery_id = ANY(%(ids)s)",
    "deliveries": "DELETE FROM delivery WHERE id = ANY(%(ids)s)",
}
# How many of its newest revisions a trigger keeps, even if no run has them.
_KEPT_REVISIONS = 50
# Reads a page of the revisions of all triggers, trigger by trigger and the oldest first, and removes those that are no
# longer needed. It reads them by an index, so that each step looks at a limited number. A trigger's present revision is
# its newest one, unless the database's clock was put back. New runs refer only to the present revision, so an old one
# without runs never gets one.
_REVISIONS = f"""
WITH page AS MATERIALIZED (
    SELECT id, trigger_id, created_at FROM trigger_revision
    WHERE (trigger_id, created_at, id) > (%(trigger_id)s::uuid, %(created_at)s::timestamptz, %(id)s::uuid)
    ORDER BY trigger_id, created_at, id LIMIT %(limit)s),
old AS MATERIALIZED (
    SELECT v.id FROM page p JOIN trigger_revision v ON v.id = p.id
    WHERE p.created_at < %(before)s
        AND EXISTS (
            SELECT FROM trigger_revision n
            WHERE n.trigger_id = p.trigger_id AND (n.created_at, n.id) > (p.created_at, p.id)
            ORDER BY n.created_at, n.id OFFSET {_KEPT_REVISIONS - 1})
        AND NOT EXISTS (SELECT FROM run r WHERE r.revision_id = p.id)
        AND NOT EXISTS (SELECT FROM trigger t WHERE t.id = p.trigger_id AND t.revision_id = p.id)
    {{lock}}){{removed}}
SELECT last.*, (SELECT count(*) FROM old) AS removed
FROM (SELECT * FROM page ORDER BY trigger_id DESC, created_at DESC, id DESC LIMIT 1) last
"""
_COUNT_REVISIONS = _REVISIONS.format(lock="", removed="")
_REMOVE_REVISIONS = _REVISIONS.format(
    lock="FOR UPDATE OF v SKIP LOCKED",
    removed=", gone AS (DELETE FROM trigger_revision v USING old WHERE v.id = old.id)",
)
# The tables whose removed rows the audit row counts. Rows of other tables, such as texts and attempts, belong to one of
# these rows and are not counted.
_TOLD = ("runs", "ticks", "deliveries")


def prune_runs(order: Order) -> Iterator[Batch]:
    """Removes runs that ended before `order.before`, and all that refers to them, as well as older skipped ticks and
    webhook tests. It goes through the environments one by one.
    """
    for environment_id in _environments():
        yield from _ended_runs(environment_id, order)
        yield from _rows(environment_id, order, _skipped_ticks, _REMOVE_TICKS)
        yield from _rows(
            environment_id, order, _ended_deliveries, _REMOVE_DELIVERIES, of_no_run=True
        )


def prune_deliveries(order: Order) -> Iterator[Batch]:
    """Removes deliveries queued before `order.before` that are no longer pending. Their runs stay."""
    for environment_id in _environments():
        yield from _rows(
            environment_id, order, _ended_deliveries, _REMOVE_DELIVERIES, of_no_run=False
        )


def prune_revisions(order: Order) -> Iterator[Batch]:
    """Removes revisions of triggers that were made before `order.before`, that no run refers to, and that are not among
    the newest ones of their triggers. Each step looks at `order.limit` revisions at most.

    It writes no audit row, because the audit rows about the changes of triggers stay.
    """
    statement = _COUNT_REVISIONS if order.dry_run else _REMOVE_REVISIONS
    page: Row | None = {"trigger_id": UUID(int=0), "created_at": "-infinity", "id": UUID(int=0)}

    def step() -> int:
        nonlocal page
        # If nearly all runs had one revision, PostgreSQL would read all runs to look for those of another one.
        execute("SET LOCAL enable_seqscan = off", {})
        page = fetch_one(statement, {**(page or {}), "before": order.before, "limit": order.limit})
        return page["removed"] if page else 0

    while True:
        removed = remove(step)
        if page is None:
            return
        yield Batch(removed, removed)


def _environments() -> list[UUID]:
    return [row["id"] for row in fetch_all(_ENVIRONMENTS, {})]


def _ended_runs(environment_id: UUID, order: Order) -> Iterator[Batch]:
    """Goes through the old runs of an environment page by page."""
    last: Row = {"ended_at": "-infinity", "id": UUID(int=0)}
    page: list[Row] = []
    of = {"environment_id": environment_id, "before": order.before, "limit": order.limit}

    def step() -> int:
        nonlocal page
        page = fetch_all(_PAGE if order.dry_run else _PAGE + _LOCK, {**of, **last})
        chains = fetch_all(_CHAINS, {**of, "ids": [row["id"] for row in page]})
        ids = [row["id"] for row in chains]
        if not order.dry_run:
            _remove(environment_id, order, _REMOVE, ids)
        return len(ids)

    while True:
        try:
            removed = remove(step)
        except InUse:
            # Another transaction has locked some of the page's rows. The next pruning removes these runs.
            removed = 0
        if not page:
            return
        last = page[-1]
        yield Batch(len(page), removed)


def _rows(
    environment_id: UUID,
    order: Order,
    select: Callable[[str], str],
    statements: dict[str, str],
    **params: Any,
) -> Iterator[Batch]:
    params = {"environment_id": environment_id, "before": order.before, **params}
    if order.dry_run:
        found = f"SELECT count(*) AS n FROM ({select('')}) old"
        count = fetch_all(found, {**params, "limit": None})[0]["n"]
        yield Batch(count, count)
        return

    def step() -> int:
        ids = [row["id"] for row in fetch_all(select(_LOCK), {**params, "limit": order.limit})]
        _remove(environment_id, order, statements, ids)
        return len(ids)

    yield from until_short(step, order.limit)


def _remove(
    environment_id: UUID, order: Order, statements: dict[str, str], ids: list[UUID]
) -> None:
    """Removes the rows with these ids and emits one event for all of them, in the caller's transaction."""
    if not ids:
        return
    removed = {name: execute(statement, {"ids": ids}) for name, statement in statements.items()}
    told = {name: count for name, count in removed.items() if name in _TOLD}
    about = {"before": iso_time(order.before), **told}
    emit(Event("runs.pruned", SYSTEM, environment_id, "environment", environment_id, about))


AT_LEAST_DAYS = 2

# Removes batches in the default partition. The day on which they were stored had no partition.
_STRAYS = """
DELETE FROM run_event_batch_default WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_event_batch_default WHERE stored_at < %(before)s LIMIT %(limit)s))
"""
_COUNTED = """
DELETE FROM run_event_day WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_event_day
    WHERE (day + 1)::timestamp AT TIME ZONE 'UTC' <= %(before)s LIMIT %(limit)s))
"""


def drop_partitions(order: Order) -> Iterator[Batch]:
    """Drops the partitions of days before `order.before`, and yields how many batches each had. A partition in use
    stays until the next time. It writes no audit row, because events are no part of the ledger.
    """
    for day in partitions_before("run_event_batch", order.before):
        batches = _batches(day["name"])
        if not order.dry_run:
            try:
                remove(partial(_drop, day["name"], batches))
            except InUse:
                return
        yield Batch(max(batches, 1), batches)
    if not order.dry_run:
        params = {"before": order.before, "limit": order.limit}
        for statement in (_STRAYS, _COUNTED):
            yield from until_short(partial(execute, statement, params), order.limit)


def _drop(name: str, batches: int) -> int:
    execute(f"DROP TABLE IF EXISTS {name}", {})
    return batches


def _batches(name: str) -> int:
    """Returns about how many batches a partition has, as PostgreSQL last estimated it, because counting takes long."""
    row = fetch_one(
        "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%(name)s)", {"name": name}
    )
    return max(int(row["reltuples"]), 0) if row else 0


DAYS_AHEAD = 3

# If a day without a partition has rows in the default partition, it gets no partition any more, since PostgreSQL
# refuses to move the rows. The advisory lock keeps two schedulers from making the same partition.
_ADD = f"""
SELECT run_event_add_partition(day) AS is_new FROM (
    SELECT ({NOW} AT TIME ZONE 'UTC')::date + n AS day FROM generate_series(0, %(days)s) n) days
WHERE pg_try_advisory_xact_lock(hashtext('run_event_add_partition'))
    AND NOT EXISTS (
        SELECT 1 FROM run_event_batch_default
        WHERE stored_at >= day::timestamp AT TIME ZONE 'UTC' AND stored_at < (day + 1)::timestamp AT TIME ZONE 'UTC')
"""


def add_partitions(*, now: datetime | None = None) -> int:
    """Makes the partitions that are missing for this day and the three that follow, and returns how many it made."""
    return sum(row["is_new"] for row in fetch_all(_ADD, {"days": DAYS_AHEAD, "now": now}))
