"""Tells how PostgreSQL executes queries: which tables it reads as a whole, and how many rows it reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

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
            ((plan,),) = (tuple(row.values()) for row in cursor.fetchall())
            found.plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found
