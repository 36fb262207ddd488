"""How the scheduler's jobs take turns between workspaces, so that no tenant's rows make another tenant wait.

A turn takes the oldest due rows of each workspace and shares its limit among the workspaces. It ends after its rows or
after TURN_SECONDS. What is left waits for the next turn, which comes after those of the other jobs. Rows that somebody
has locked hold up only their own environment.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db import OperationalError, transaction

from pipedai.logs import get_logger
from pipedai.sql import NOW, Row, fetch_all
from pipedai.timeouts import lacks_lock

log = get_logger(__name__)
T = TypeVar("T")

# A turn begins nothing more after this time.
TURN_SECONDS: Final = 1.0

# Splits the limit between the workspaces of `queue`, which has a row for each environment with due rows. The
# environments of a workspace share its part, in a random order, so that each has its turn even if they are many. The
# share is a value and no joined table, so that no plan counts it anew for each environment.
_SHARES = """
share AS (SELECT ceil(%(limit)s::numeric / greatest(count(*) FILTER (WHERE position = 1), 1))::int AS size FROM queue),
turn AS (
    SELECT environment_id,
        ceil((SELECT size FROM share)::numeric / least(environments, (SELECT size FROM share)))::int AS most
    FROM queue WHERE position <= (SELECT size FROM share) ORDER BY position, random())
"""
_IS_ASKED = "(%(only)s::uuid IS NULL OR {}.environment_id = %(only)s)"


def in_time(items: Iterable[T]) -> Iterator[T]:
    """Yields the items until TURN_SECONDS have passed since the first was asked for. It yields one at least."""
    until = time.monotonic() + TURN_SECONDS
    for item in items:
        yield item
        if time.monotonic() > until:
            return


@dataclass(frozen=True, slots=True)
class Turns:
    """Finds the rows of a turn. `statement` returns up to `limit` rows with `environment_id`, shared among the
    workspaces, or only those of the environment `only`, if that is not NULL.
    """

    statement: str

    def take(
        self,
        do: Callable[[list[Row]], int],
        *,
        limit: int,
        now: datetime | None = None,
        **more: Any,
    ) -> int:
        """Calls `do` with the rows of a turn, in the transaction that has found them, and returns what it returns. If
        it does not get its locks at once, each environment gets a transaction of its own, and those that don't get
        their locks then wait for the next turn. `more` has other parameters of the statement.
        """
        attempt = partial(self._take, do, limit=limit, now=now, **more)
        try:
            with transaction.atomic():
                return attempt()
        except OperationalError as error:
            if not lacks_lock(error):
                raise
        done = 0
        for only in in_time(dict.fromkeys(self._environments(limit=limit, now=now, **more))):
            try:
                with transaction.atomic():
                    number = attempt(only=only)
                done += number
            except OperationalError as error:
                if not lacks_lock(error):
                    raise
                log.info("turn.waits_for_lock", environment_id=str(only))
        return done

    def each(
        self, do: Callable[[Row], bool], *, limit: int, now: datetime | None = None, **more: Any
    ) -> int:
        """Calls `do` with each row of a turn, in a transaction of its own, and returns for how many it returned True.
        `do` locks the row, since another scheduler may have found it too. If `do` fails for one row, the others are
        done nevertheless, and the error is raised afterwards. An environment that lacks a lock waits for the next turn.
        """
        done, failed, busy = 0, None, set[UUID]()
        for row in in_time(self.rows(limit=limit, now=now, **more)):
            if row["environment_id"] in busy:
                continue
            try:
                with transaction.atomic():
                    was_done = do(row)
                done += was_done
            except Exception as error:
                if lacks_lock(error):
                    busy.add(row["environment_id"])
                else:
                    failed = error
        if failed is not None:
            raise failed
        return done

    def _take(self, do: Callable[[list[Row]], int], **params: Any) -> int:
        rows = self.rows(**params)
        return do(rows) if rows else 0

    def _environments(self, **params: Any) -> list[UUID]:
        with transaction.atomic():
            return [row["environment_id"] for row in self.rows(**params)]

    def rows(self, *, only: UUID | None = None, **params: Any) -> list[Row]:
        """Returns the rows of a turn. Call it in a transaction if the statement locks them."""
        return fetch_all(self.statement, {"only": only, **params})


def due_rows(
    table: str, *, waits: str, order: str, is_due: bool = True, key: str = "id", lock: bool = True
) -> Turns:
    """Returns the turns of the rows of a table for which the SQL condition `waits` holds, in the order of the column
    `order`; if `is_due`, only those for which that time has come. It reads an index of (environment_id, `order`) with
    the condition `waits`, once for each environment that has such rows. Rows have `id`, from the column `key`. If
    `lock`, they are locked, and rows that others have locked are left out.
    """
    has_come = f"AND {order} <= {NOW}" if is_due else ""
    return Turns(f"""
WITH RECURSIVE waiting (environment_id, since) AS (
    (SELECT environment_id, {order} FROM {table} WHERE {waits} ORDER BY environment_id, {order} LIMIT 1)
    UNION ALL
    SELECT following.* FROM waiting CROSS JOIN LATERAL (
        SELECT environment_id, {order} FROM {table} WHERE {waits} AND environment_id > waiting.environment_id
        ORDER BY environment_id, {order} LIMIT 1) following),
queue AS (
    SELECT w.environment_id, count(*) OVER workspace AS environments,
        row_number() OVER (workspace ORDER BY random()) AS position
    FROM waiting w JOIN environment e ON e.id = w.environment_id
    WHERE {f"w.since <= {NOW} AND" if is_due else ""} {_IS_ASKED.format("w")}
    WINDOW workspace AS (PARTITION BY e.workspace_id)),
{_SHARES}
SELECT r.* FROM turn CROSS JOIN LATERAL (
    SELECT {key} AS id, environment_id FROM {table}
    WHERE {waits} {has_come} AND environment_id = turn.environment_id
    ORDER BY {order} LIMIT turn.most {"FOR NO KEY UPDATE SKIP LOCKED" if lock else ""}) r
LIMIT %(limit)s
""")  # noqa: S608 - our own conditions


def found_rows(query: str, *, more: str = "", lock: str = "") -> Turns:
    """Returns the turns of the rows that a query finds, which have `id` and `environment_id`. The query is read to its
    end, so it must find few rows or be cheap. `more` joins further tables to the rows `r`, and `lock` locks them.
    """
    return Turns(f"""
SELECT r.* FROM (
    SELECT f.*, row_number() OVER (PARTITION BY e.workspace_id ORDER BY f.id) AS position
    FROM ({query}) f JOIN environment e ON e.id = f.environment_id WHERE {_IS_ASKED.format("f")}) r
{more} ORDER BY r.position, r.id LIMIT %(limit)s {lock}
""")  # noqa: S608 - our own query
