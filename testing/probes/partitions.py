"""Tells how many partitions of a table each statement touches, when PostgreSQL really executes it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from psycopg.pq import TransactionStatus

from testing.probes.plan_nodes import nodes

# A partition's name: that of the table, of audit entries also the month, and the remainder of the hash.
_PARTITION = re.compile(r"(run|tick|delivery|audit_entry)_(?:(?:default|\d{4}_\d\d)_)?(\d+)")
_PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


@dataclass
class Touched:
    """The statements that touched partitioned tables, each with the partitions of each table that it scanned."""

    statements: list[tuple[str, dict[str, set[str]]]] = field(default_factory=list)

    @property
    def crossing(self) -> dict[str, str]:
        """Returns the statements that scanned more than one partition of a table, by the tables."""
        return {
            " ".join(sql.split()): ", ".join(
                f"{table}: {len(parts)}" for table, parts in sorted(found.items()) if len(parts) > 1
            )
            for sql, found in self.statements
            if any(len(parts) > 1 for parts in found.values())
        }


@contextmanager
def touched_partitions() -> Iterator[Touched]:
    """Explains each statement of the block, by executing it once before and undoing that."""
    found = Touched()

    def explain(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if sql.lstrip(" \n(").startswith(_PLANNED) and (parts := _scanned(sql, params)):
            found.statements.append((sql, parts))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found


def _scanned(sql: str, params: Any) -> dict[str, set[str]]:
    driver = connection.connection
    is_inside = driver.info.transaction_status == TransactionStatus.INTRANS
    begin, undo = ("SAVEPOINT probe", "ROLLBACK TO probe") if is_inside else ("BEGIN", "ROLLBACK")
    with driver.cursor() as cursor:
        cursor.execute(begin)
        try:
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
            ((plan,),) = cursor.fetchall()
        finally:
            cursor.execute(undo)
    parts: dict[str, set[str]] = {}
    for node in nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]):
        match = _PARTITION.fullmatch(node.get("Relation Name", ""))
        if match and node["Actual Loops"]:
            parts.setdefault(match[1], set()).add(match[2])
    return parts
