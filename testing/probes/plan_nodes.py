"""Reads query plans: their nodes, how many rows they read, and which tables of the ledger from end to end."""

import re
from collections.abc import Iterator
from typing import Any

# The tables of the ledger. The audit log's partitions have its name and a month.
_LEDGER = re.compile(r"run|run_text|run_result|delivery|delivery_attempt|tick|audit_entry(_.*)?")
# The planner is right to read a small table whole, such as the partition of a month that has just begun.
_FEW_ROWS = 10_000
_READ = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")


def sequential_scans(plan: dict[str, Any]) -> list[str]:
    """Return the ledger's tables that a plan read from end to end, without those with few rows."""
    return [
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan"
        and _LEDGER.fullmatch(node["Relation Name"])
        and _rows_read(node) > _FEW_ROWS
    ]


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows a plan's scans read, with those that a filter removed. This figure has no noise."""
    return round(sum(_rows_read(node) for node in nodes(plan) if "Scan" in node["Node Type"]))


def _rows_read(node: dict[str, Any]) -> float:
    each = sum(node.get(name, 0) for name in _READ)
    return float(each * node.get("Actual Loops", 1))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)
