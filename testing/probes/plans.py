"""Tells how PostgreSQL executes queries: which tables it reads as a whole, and how many rows it reads."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from psycopg._queries import _query2pg_nocache
from psycopg.sql import Literal

from testing.probes.plan_nodes import nodes, rows_read


@dataclass
class Plans:
    """The plans of the queries, as PostgreSQL really executed them."""

    plans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def read_whole(self) -> set[str]:
        """Returns the tables that a query read from end to end."""
        return {
            node["Relation Name"]
            for plan in self.plans
            for node in nodes(plan)
            if node["Node Type"] == "Seq Scan"
        }

    @property
    def indexes(self) -> set[str]:
        """Returns the indexes that the scans read. A scan of an index can compare a later column in each entry, and
        counts no row that it passes over so.
        """
        return {
            node["Index Name"]
            for plan in self.plans
            for node in nodes(plan)
            if "Index Name" in node and node["Actual Loops"]
        }

    @property
    def rows_of_all_scans(self) -> int:
        """Returns how many rows all scans read, also those of results that are kept for the rest of a statement."""
        return sum(map(rows_read, self.plans))

    @property
    def buffers(self) -> int:
        """Returns how many pages the queries looked at, also those without a row that they wanted."""
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)

    def rows_read(self, table: str) -> int:
        """Returns how many rows of a table the scans read, including those that a filter dropped."""
        return sum(
            rows_read({**node, "Plans": []})
            for plan in self.plans
            for node in nodes(plan)
            if node.get("Relation Name") == table
        )


@contextmanager
def explained(
    begin: str | tuple[str, ...] = "WITH RECURSIVE", *, kept: bool = False
) -> Iterator[Plans]:
    """Explains each statement of the block that begins so, by executing it once before and undoing that, and keeps the
    plans. With `kept` each has the plan for all values, which PostgreSQL may choose after a few calls of a prepared
    statement and keeps.
    """
    found = Plans()

    def explain(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if sql.lstrip().startswith(begin):
            cursor = context["cursor"].cursor
            with transaction.atomic():
                asked: tuple[str, Any] = (sql, params)
                if kept:
                    cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                    cursor.execute(_prepare(sql, params))
                    asked = (_call(sql, params), None)
                execute(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked[0]}", asked[1], many, context
                )
                (row,) = cursor.fetchall()
                if kept:
                    cursor.execute("DEALLOCATE explained")
                transaction.set_rollback(True)
            (plan,) = row.values() if isinstance(row, dict) else row
            found.plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found
    assert found.plans, f"no statement began with {begin}"


# What PostgreSQL can't find out about a parameter by itself.
_TYPES = {datetime: "timestamptz", timedelta: "interval", UUID: "uuid"}


def _prepare(sql: str, params: Any) -> str:
    query, *_ = _query2pg_nocache(sql.encode(), "utf-8")
    types = ", ".join(_TYPES.get(type(value), "unknown") for value in _values(sql, params))
    return f"PREPARE explained{types and f' ({types})'} AS {query.decode()}"


def _call(sql: str, params: Any) -> str:
    """Returns the call of the statement that `_prepare` prepares. PostgreSQL explains no call with parameters."""
    driver = connection.connection
    texts = ", ".join(Literal(value).as_string(driver) for value in _values(sql, params))
    return f"EXECUTE explained{texts and f' ({texts})'}"


def _values(sql: str, params: Any) -> list[Any]:
    """Returns the values in the order of the numbers that psycopg gives to the parameters."""
    _, _, names, _ = _query2pg_nocache(sql.encode(), "utf-8")
    return list(params or ()) if names is None else [params[name] for name in names]


def explained_as_kept(sql: str, params: Mapping[str, Any]) -> Plans:
    """Explains a query with the plan for all values, as `explained` does with `kept`."""
    with explained(sql.lstrip()[:20], kept=True) as found, connection.cursor() as cursor:
        cursor.execute(sql, params)
    return found


def prefer_indexes() -> None:
    """Makes PostgreSQL plan for a test's few rows as it does for millions, which it does not read from end to end."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
