"""Deletes old rows of the kinds that apps register, by `manage.py prune` and by the scheduler.

Each batch is a small transaction that waits only briefly for a lock, so a killed process loses the work of one batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import NamedTuple

from django.db import DatabaseError

from pipedai import timeouts
from pipedai.logs import get_logger
from pipedai.sql import Row, database_now, execute, fetch_all, sqlstate

log = get_logger(__name__)

_PAUSE_SECONDS = 0.2
_LOCK_SECONDS = 0.2
# The errors that mean that a row is in use. 23503 is foreign_key_violation: somebody has just referred to it.
_IN_USE = timeouts.LACKS_LOCK | {"23503"}
# _SCHEDULER_BATCH is the largest number of rows that the scheduler deletes in one batch, and _TURN_SECONDS the longest
# time that it searches for rows to delete. Both are small, because the scheduler's other jobs wait meanwhile.
_SCHEDULER_BATCH = 200
_TURN_SECONDS = 0.2


class Batch(NamedTuple):
    """The result of one batch: how many rows were examined, and how many were deleted (or would be in a dry run)."""

    seen: int
    removed: int


@dataclass(frozen=True, slots=True)
class Order:
    """Rows older than `before`, in batches of about `limit`. `dry_run` only counts them."""

    before: datetime
    limit: int
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """A kind of rows that may be deleted when old. `days` returns how many days they are kept: `at_least` or more, or
    None for ever. `prune` deletes a batch at each step. The scheduler deletes only `automatic` kinds.
    """

    kind: str
    what: str
    days: Callable[[], int | None]
    prune: Callable[[Order], Iterator[Batch]]
    at_least: int = 1
    automatic: bool = True


_registered: dict[str, Retention] = {}


def register_retention(*kinds: Retention) -> None:
    _registered.update((each.kind, each) for each in kinds)


def retentions() -> tuple[Retention, ...]:
    return tuple(_registered.values())


def prune(retention: Retention, *, days: int, limit: int, dry_run: bool = False) -> Iterator[Batch]:
    return retention.prune(Order(database_now() - timedelta(days=days), limit, dry_run))


class InUse(Exception):  # noqa: N818 - what is the matter
    """Every try to delete a row failed because the row was in use. The message is one sentence."""


def remove(step: Callable[[], int], *, tries: int = 5) -> int:
    """Runs one batch and returns how many rows it deleted. It tries again if a row is in use. Raises InUse."""

    attempts = count()

    def tell(_: float, error: DatabaseError) -> None:
        reason = type(error.__cause__).__name__
        log.info("prune.in_use", reason=reason, attempt=next(attempts))

    work = partial(timeouts.in_transaction, step, _LOCK_SECONDS)
    pauses = iter([_PAUSE_SECONDS] * (tries - 1))
    try:
        return timeouts.retry(work, pauses=pauses, tell=tell, states=_IN_USE)
    except DatabaseError as error:
        if sqlstate(error) not in _IN_USE:
            raise
        raise InUse(
            "Somebody uses what was to be removed; nothing is half done: try again later."
        ) from None


def until_short(step: Callable[[], int], limit: int) -> Iterator[Batch]:
    """Calls `step`, which deletes at most `limit` rows, until it deletes fewer, and yields the result of each batch."""
    removed = limit
    while removed >= limit:
        removed = remove(step)
        yield Batch(removed, removed)


def rows_where(
    table: str,
    old: str,
    *,
    by: str,
    key: Sequence[str] = ("id",),
    children: Mapping[str, str] | None = None,
) -> Callable[[Order], Iterator[Batch]]:
    """Returns the `prune` for the rows of a table that meet the SQL condition `old`, in which the table is `t` and the
    time limit `before`. It deletes rows in the order of `by`, and skips rows that another process deletes. `key` is the
    primary key. Rows of `children` are deleted too: it names the column of each table that refers to `table`'s `id`.
    """
    ours, theirs = (", ".join(f"{of}.{name}" for name in key) for of in ("t", "old"))
    # The names and the conditions are constants of modules.
    count = f"SELECT count(*) AS n FROM {table} t WHERE {old}"  # noqa: S608
    gone = "".join(
        f",\n{child}_gone AS (DELETE FROM {child} c USING old WHERE c.{column} = old.id)"  # noqa: S608
        for child, column in (children or {}).items()
    )
    remove = f"""
WITH old AS MATERIALIZED (
    SELECT {ours} FROM {table} t WHERE {old} ORDER BY {by} LIMIT %(limit)s FOR UPDATE SKIP LOCKED){gone}
DELETE FROM {table} t USING old WHERE ({ours}) = ({theirs})
"""  # noqa: S608

    def prune(order: Order) -> Iterator[Batch]:
        params = {"before": order.before, "limit": order.limit}
        if order.dry_run:
            found = fetch_all(count, params)[0]["n"]
            yield Batch(found, found)
        else:
            yield from until_short(lambda: execute(remove, params), order.limit)

    return prune


# Reads a table's partitions and their ends from PostgreSQL's catalogue: the upper bound of a partition is the end of
# its month or day. The default partition has no bound, so it is never among them.
_PARTITIONS = """
SELECT name, ends_at FROM (
    SELECT c.oid::regclass::text AS name,
        substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS ends_at
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(%(table)s)) parts
WHERE ends_at <= %(before)s ORDER BY ends_at
"""


def partitions_before(table: str, moment: datetime) -> list[Row]:
    """Returns `name` and `ends_at` of the partitions that ended by this moment, the oldest first."""
    return fetch_all(_PARTITIONS, {"table": table, "before": moment})


class Rounds:
    """The scheduler's job that deletes old rows, kind by kind, in rounds."""

    def __init__(self) -> None:
        # The kinds that this round has not finished, the next one last.
        self._left: list[Iterator[Batch]] = []

    def work(self) -> int:
        """Does one batch and returns how many rows it examined, or 0 when all is done. It stops after 0.2 s in which it
        found no old rows, and returns 1, so that other jobs run before it goes on. An error ends the round for its kind
        alone: the next call goes on with the next kind.
        """
        self._left = self._left or [_batches(each) for each in reversed(retentions())]
        until = time.monotonic() + _TURN_SECONDS
        while self._left:
            kind = self._left.pop()
            for batch in kind:
                if batch.seen or time.monotonic() > until:
                    self._left.append(kind)
                    return max(batch.seen, 1)
        return 0


def _batches(retention: Retention) -> Iterator[Batch]:
    days = retention.days()
    if retention.automatic and days is not None:
        yield from prune(retention, days=days, limit=_SCHEDULER_BATCH)
