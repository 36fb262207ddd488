"""Only `triggers/runs/statements.py` inserts runs or changes them (docs/decisions/lifecycle-sql.md)."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipedai.env import BASE_DIR
from testing.world.cases import cases

APPS = ("accounts", "audit", "notices", "pipedai", "triggers", "workers", "workspaces")
STATEMENTS = "triggers/runs/statements.py"
# Old runs are removed by the operator's retention.
PRUNING = "triggers/pruning.py"
ORM_WRITES = (
    r"\bRun(\.objects\b[^\n]*)?\.(create|bulk_create|bulk_update|update|delete|get_or_create)\("
)


def modules() -> Iterator[tuple[str, str]]:
    """Each module of product code, by its path, with its text."""
    for app in APPS:
        for path in sorted((BASE_DIR / app).rglob("*.py")):
            name = path.relative_to(BASE_DIR)
            if not {"tests", "migrations"} & set(name.parts):
                yield str(name), Path(path).read_text()


def holding(pattern: str) -> set[str]:
    return {name for name, text in modules() if re.search(pattern, text, re.IGNORECASE)}


@cases("statement", [r"INSERT\s+INTO\s+run\b(?!_)", r"UPDATE\s+(ONLY\s+)?run\b(?!_)"])
def test_one_module_inserts_runs_and_changes_them(statement):
    assert holding(statement) == {STATEMENTS}


def test_one_list_of_columns_serves_every_insert():
    text = (BASE_DIR / STATEMENTS).read_text()
    assert len(re.findall(r"INSERT INTO run\b(?!_)", text)) == 1
    assert len(re.findall(r"\{_INSERT(_REQUESTED|_RETRY)?\}", text)) == 3


def test_only_pruning_deletes_runs():
    assert holding(r"DELETE\s+FROM\s+run\b(?!_)") == {PRUNING}


def test_the_orm_writes_no_run():
    assert holding(ORM_WRITES) == set()


def test_no_module_copies_rows_into_tables():
    assert holding(r"\bCOPY\b.+\bFROM\s+STDIN\b") == set()
