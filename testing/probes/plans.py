"""Tells how PostgreSQL executes queries: which tables it reads as a whole, and how many rows it reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

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
    def rows_of_all_scans(self) -> int:
        """Returns how many rows all scans read, also those of results that are kept for the rest of a statement."""
        return sum(map(rows_read, self.plans))

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
            execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params, many, context)
            cursor = context["cursor"].cursor
            (row,) = cursor.fetchall()
            (plan,) = row.values() if isinstance(row, dict) else row
            found.plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found
    assert found.plans, f"no query began with {begin}"


def prefer_indexes() -> None:
    """Makes PostgreSQL plan for a test's few rows as it does for millions, which it does not read from end to end."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
