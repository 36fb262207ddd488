"""Removes old runs from the ledger, with all that hangs on them, where the operator has set a retention (SPEC §10).

An unfinished run is never removed, nor one that has a webhook to deliver. A run and its retries go
together, once the last of them is old enough: a ledger that says "retried" can always say what came of it.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from pipedai.retention import Batch, InUse, Order, remove, until_short
from pipedai.sql import Row, execute, fetch_all

_ENVIRONMENTS = "SELECT id FROM environment ORDER BY id"

# The ended runs of an environment, from the oldest on: along the index `run_ended_summed`.
_PAGE = """
SELECT id, ended_at FROM run
WHERE environment_id = %(environment_id)s AND ended_at IS NOT NULL
    AND ended_at < %(before)s AND (ended_at, id) > (%(ended_at)s::timestamptz, %(id)s::uuid)
ORDER BY ended_at, id LIMIT %(limit)s
"""

# Each chain is found by its last run, which no other retries; those before it need no lock of their own, since
# nobody else comes by them but through the last.
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

# In the order of the foreign keys. The runs go in one statement, since they refer to each other.
_REMOVE = {
    "idempotencyKeys": "DELETE FROM idempotency_key WHERE run_id = ANY(%(ids)s)",
    "ticks": "DELETE FROM tick WHERE run_id = ANY(%(ids)s)",
    "attempts": "DELETE FROM delivery_attempt a USING delivery d"
    " WHERE d.run_id = ANY(%(ids)s) AND a.delivery_id = d.id",
    "deliveries": "DELETE FROM delivery WHERE run_id = ANY(%(ids)s)",
    "texts": "DELETE FROM run_text WHERE run_id = ANY(%(ids)s)",
    "runs": "DELETE FROM run WHERE id = ANY(%(ids)s)",
}

_LOCK = " FOR UPDATE SKIP LOCKED"


# Of an environment, by its triggers: rows that hang on no run, and deliveries that are over.
def _skipped_ticks(lock: str) -> str:
    return f"""
SELECT old.id FROM trigger CROSS JOIN LATERAL (
    SELECT id FROM tick
    WHERE trigger_id = trigger.id AND tick_at < %(before)s AND last_tick_at < %(before)s AND run_id IS NULL
    ORDER BY tick_at LIMIT %(limit)s{lock}) old
WHERE trigger.environment_id = %(environment_id)s LIMIT %(limit)s
"""  # noqa: S608


def _ended_deliveries(lock: str) -> str:
    return f"""
SELECT old.id FROM trigger CROSS JOIN LATERAL (
    SELECT id FROM delivery
    WHERE trigger_id = trigger.id AND created_at < %(before)s AND status <> 'pending'
        AND (run_id IS NULL OR NOT %(of_no_run)s)
    ORDER BY created_at, id LIMIT %(limit)s{lock}) old
WHERE trigger.environment_id = %(environment_id)s LIMIT %(limit)s
"""  # noqa: S608


_REMOVE_TICKS = {"ticks": "DELETE FROM tick WHERE id = ANY(%(ids)s)"}
_REMOVE_DELIVERIES = {
    "attempts": "DELETE FROM delivery_attempt WHERE delivery_id = ANY(%(ids)s)",
    "deliveries": "DELETE FROM delivery WHERE id = ANY(%(ids)s)",
}

_COUNT_KEYS = "SELECT count(*) AS n FROM idempotency_key WHERE created_at < %(before)s"
_REMOVE_KEYS = """
WITH old AS MATERIALIZED (
    SELECT trigger_id, caller_id, key FROM idempotency_key WHERE created_at < %(before)s
    ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM idempotency_key k USING old
WHERE (k.trigger_id, k.caller_id, k.key) = (old.trigger_id, old.caller_id, old.key)
"""
# What an audit row counts; the rest is a part of these.
_TOLD = ("runs", "ticks", "deliveries")


def prune_runs(order: Order) -> Iterator[Batch]:
    """Removes runs that ended before, with their texts, ticks, deliveries and remembered keys; and the
    skipped ticks and tests of webhooks of that time. Environment by environment."""
    for environment_id in _environments():
        yield from _ended_runs(environment_id, order)
        yield from _rows(environment_id, order, _skipped_ticks, _REMOVE_TICKS)
        yield from _rows(
            environment_id, order, _ended_deliveries, _REMOVE_DELIVERIES, of_no_run=True
        )


def prune_deliveries(order: Order) -> Iterator[Batch]:
    """Removes deliveries that were queued before and are over, with their attempts; their runs stay."""
    for environment_id in _environments():
        yield from _rows(
            environment_id, order, _ended_deliveries, _REMOVE_DELIVERIES, of_no_run=False
        )


def prune_idempotency_keys(order: Order) -> Iterator[Batch]:
    """Forgets keys that no longer count. Bookkeeping, and nothing that anybody did: it leaves no audit row."""
    params = {"before": order.before, "limit": order.limit}
    if order.dry_run:
        count = fetch_all(_COUNT_KEYS, params)[0]["n"]
        yield Batch(count, count)
    else:
        yield from until_short(lambda: execute(_REMOVE_KEYS, params), order.limit)


def _environments() -> list[UUID]:
    return [row["id"] for row in fetch_all(_ENVIRONMENTS, {})]


def _ended_runs(environment_id: UUID, order: Order) -> Iterator[Batch]:
    pages = _Pages(environment_id, order)
    while True:
        try:
            removed = remove(pages.prune_next)
        except InUse:
            removed = 0  # these stay for another time
        if not pages.page:
            return
        pages.turn()
        yield Batch(len(pages.page), removed)


class _Pages:
    """The old runs of an environment, a page at a time."""

    def __init__(self, environment_id: UUID, order: Order) -> None:
        self.page: list[Row] = []
        self._last: Row = {"ended_at": "-infinity", "id": UUID(int=0)}
        self._environment_id, self._order = environment_id, order

    def prune_next(self) -> int:
        """Removes what may go of the next page; how many runs."""
        order = self._order
        params = {
            **self._last,
            "environment_id": self._environment_id,
            "before": order.before,
            "limit": order.limit,
        }
        self.page = fetch_all(_PAGE if order.dry_run else _PAGE + _LOCK, params)
        chains = fetch_all(_CHAINS, {**params, "ids": [row["id"] for row in self.page]})
        ids = [row["id"] for row in chains]
        if not order.dry_run:
            _remove(self._environment_id, order, _REMOVE, ids)
        return len(ids)

    def turn(self) -> None:
        """What this page had is not looked at again."""
        self._last = self.page[-1]


def _rows(
    environment_id: UUID,
    order: Order,
    select: Callable[[str], str],
    statements: dict[str, str],
    **params: Any,
) -> Iterator[Batch]:
    params = {"environment_id": environment_id, "before": order.before, **params}
    if order.dry_run:
        count = _count(select(""), {**params, "limit": None})
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
    """Removes the rows and says so, in the transaction at hand: one audit row for each batch."""
    if not ids:
        return
    removed = {name: execute(statement, {"ids": ids}) for name, statement in statements.items()}
    told = {name: count for name, count in removed.items() if name in _TOLD}
    emit(
        Event(
            "runs.pruned",
            SYSTEM,
            environment_id,
            "environment",
            environment_id,
            {"before": iso_time(order.before), **told},
        )
    )


def _count(select: str, params: dict[str, Any]) -> int:
    return int(fetch_all(f"SELECT count(*) AS n FROM ({select}) old", params)[0]["n"])  # noqa: S608
