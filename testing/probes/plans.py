"""Tells how PostgreSQL executes queries: which tables it reads as a whole, and how many rows it reads."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from psycopg.sql import Literal

from bench.growth.plans import nodes, rows_read


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
def explained(begin: str | tuple[str, ...] = "WITH RECURSIVE") -> Iterator[Plans]:
    """Explains each query of the block that begins so, by executing it once before, and keeps the plans."""
    found = Plans()

    def explain(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if sql.lstrip().startswith(begin):
            execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params, many, context)
            cursor = context["cursor"].cursor
            (row,) = cursor.fetchall()
            (plan,) = row.values() if isinstance(row, dict) else row
            found.plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found
    assert found.plans, f"no query began with {begin}"


# What PostgreSQL can't find out about a parameter by itself.
_TYPES = {datetime: "timestamptz", timedelta: "interval", UUID: "uuid"}


def explained_as_kept(sql: str, params: Mapping[str, Any]) -> Plans:
    """Explains a query with the general plan that PostgreSQL may keep for a prepared statement. It knows no values."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    for number, name in enumerate(names, 1):
        sql = sql.replace(f"%({name})s", f"${number}")
    types = ", ".join(_TYPES.get(type(params[name]), "unknown") for name in names)
    driver = connection.connection
    values = ", ".join(Literal(params[name]).as_string(driver) for name in names)
    with driver.cursor() as cursor:
        cursor.execute(f"PREPARE kept ({types}) AS {sql.replace('%%', '%')}")
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        try:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE kept ({values})")
            ((plan,),) = cursor.fetchall()
        finally:
            cursor.execute("RESET plan_cache_mode")
            cursor.execute("DEALLOCATE kept")
    return Plans([plan[0]["Plan"]])


def prefer_indexes() -> None:
    """Makes PostgreSQL plan for a test's few rows as it does for millions, which it does not read from end to end."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
