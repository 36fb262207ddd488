"""The migration check refuses migrations that lock tables or break the previous release, and accepts safe ones."""

from functools import cache
from typing import Any

import pytest
from django.apps import apps
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    ValidateConstraint,
)
from django.db import models
from django.db.migrations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelTable,
    CreateModel,
    DeleteModel,
    Migration,
    RemoveField,
    RenameField,
    RunPython,
    RunSQL,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from bin import migration_check
from pipedai.env import BASE_DIR
from pipedai.table_rules import tenant_key
from testing.world.cases import cases

INDEX = models.Index(fields=["session_id"], name="planted")
POSITIVE = models.CheckConstraint(condition=models.Q(attempt__gt=0), name="planted")
UNIQUE = models.UniqueConstraint(fields=["session_id"], name="planted")

NEWEST = max(path.stem for path in (BASE_DIR / "triggers" / "migrations").glob("0*.py"))
# The migrations of the other apps are not checked at all.
EXEMPT = {app.label: "9999" for app in apps.get_app_configs()} | {"triggers": NEWEST}
LATER = "9999_planted"

UNSAFE = [
    ("require-concurrent-index-creation", AddIndex("run", INDEX)),
    ("ban-drop-column", RemoveField("run", "exit_code")),
    ("renaming-column", RenameField("run", "exit_code", "code")),
    ("renaming-table", AlterModelTable("run", "attempt")),
    ("ban-drop-table", DeleteModel("schedulerheartbeat")),
    ("changing-column-type", AlterField("run", "num_turns", models.CharField(null=True))),
    ("adding-not-nullable-field", AlterField("run", "exit_code", models.IntegerField(default=0))),
    ("adding-required-field", AddField("run", "planted", models.IntegerField())),
    ("default-of-new-code-alone", AddField("run", "planted", models.IntegerField(default=0))),
    ("constraint-missing-not-valid", AddConstraint("run", POSITIVE)),
    ("disallowed-unique-constraint", AddConstraint("run", UNIQUE)),
    ("data-migration", RunPython(RunPython.noop)),
    ("data-migration", RunSQL("UPDATE run SET exit_code = 0")),
    (
        "ban-concurrent-index-creation-in-transaction",
        RunSQL("CREATE INDEX CONCURRENTLY planted ON run (session_id)"),
    ),
]
SAFE = [
    AddField("run", "planted", models.IntegerField(null=True)),
    AddField("run", "planted", models.IntegerField(db_default=0)),
    AddConstraintNotValid("run", POSITIVE),
    CreateModel(
        "Planted",
        [
            ("id", models.UUIDField(primary_key=True)),
            ("run", models.ForeignKey("triggers.Run", models.PROTECT)),
            ("number", models.IntegerField(default=0)),
        ],
        options={"indexes": [models.Index(fields=["number"], name="planted")]},
    ),
]


@cache
def after_ours() -> ProjectState:
    """The models as they are after this project's migrations. Django has made classes of them."""
    state = MigrationLoader(None, replace_migrations=False).project_state()
    assert state.apps
    return state


def rules(operation: Any, *, atomic: bool = True) -> set[str]:
    """Returns the rules that a migration with this operation, after this project's migrations, breaks."""
    planted = type("Planted", (Migration,), {"operations": [operation], "atomic": atomic})
    migration = planted(LATER, "triggers")
    return {rule for rule, _ in migration_check.unsafe(migration, after_ours().clone())}


@pytest.mark.parametrize(("rule", "operation"), UNSAFE, ids=lambda value: str(value)[:40])
def test_an_unsafe_operation_is_found(rule, operation, db):
    assert rule in rules(operation)


@pytest.mark.parametrize("operation", SAFE, ids=lambda operation: type(operation).__name__)
def test_a_safe_operation_passes(operation, db):
    assert rules(operation) == set()


def test_an_index_that_is_built_concurrently_outside_a_transaction_passes(own_database):
    assert rules(AddIndexConcurrently("run", INDEX), atomic=False) == set()


@pytest.fixture
def later(monkeypatch) -> type[Migration]:
    """Makes a migration that comes after the exempt ones, and breaks two rules."""
    planted = type(
        "Planted",
        (Migration,),
        {
            "dependencies": [("triggers", NEWEST)],
            "operations": [tenant_key("tick", "blocked_by_id", "run")],
        },
    )
    load = MigrationLoader.load_disk

    def load_with_planted(loader: MigrationLoader) -> None:
        load(loader)
        loader.disk_migrations["triggers", LATER] = planted(LATER, "triggers")

    monkeypatch.setattr(MigrationLoader, "load_disk", load_with_planted)
    return planted


BROKEN = {"constraint-missing-not-valid", "adding-foreign-key-constraint"}


def test_what_comes_after_the_exempt_ones_is_checked_and_no_more(db, later):
    found = {(finding.migration, finding.rule) for finding in migration_check.findings(EXEMPT)}
    assert found == {(f"triggers.{LATER}", rule) for rule in BROKEN}


def test_a_reason_lets_a_rule_pass_and_must_be_needed(db, later, monkeypatch):
    reasons = dict.fromkeys({*BROKEN, "renaming-table"}, "There are no rows yet.")
    monkeypatch.setattr(later, "safe_because", reasons, raising=False)
    assert [finding.rule for finding in migration_check.findings(EXEMPT)] == ["renaming-table"]


@cases("validated", [True, False])
def test_what_is_added_without_looking_at_old_rows_is_validated_later(validated):
    add, validate = AddConstraintNotValid("run", POSITIVE), ValidateConstraint("run", "planted")
    added = type("Added", (Migration,), {"operations": [add]})
    later = type("Later", (Migration,), {"operations": [validate] if validated else []})
    made = {("triggers", "0002_later"): later, ("triggers", "0001_added"): added}
    found = [(each.migration, each.rule) for each in migration_check.never_validated(made)]
    assert found == ([] if validated else [("triggers.0001_added", "never-validated")])
