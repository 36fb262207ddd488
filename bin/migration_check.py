"""`python -m bin.migration_check`: refuses migrations that lock tables in use or break the previous release."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.apps import apps
from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import connection, migrations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

_ROOT = Path(__file__).resolve().parent.parent
_SQUAWK = str(Path(sys.executable).with_name("squawk"))
# The oldest version of PostgreSQL that the service supports.
_POSTGRES = "15.0"
# The rules of squawk, a linter of SQL migrations, that do not fit this project. All its other rules apply.
_IGNORED = frozenset(
    {
        # Migrations are run by `manage.py release`, which sets a lock timeout itself.
        "require-lock-timeout",
        # Migrations set no limit on the time of a statement, because building an index on a large table may take long.
        "require-statement-timeout",
        # The rules from here on are matters of taste. The models of this project decide otherwise.
        "prefer-bigint-over-int",
        "prefer-bigint-over-smallint",
        "prefer-identity",
        "prefer-robust-stmts",
        "prefer-text-field",
    }
)
_MOVES_ROWS = re.compile(r"^\s*(?:UPDATE|DELETE|INSERT)\b", re.IGNORECASE | re.MULTILINE)


class Finding(NamedTuple):
    """A rule that a migration breaks, with a sentence that says why that is dangerous."""

    migration: str
    rule: str
    sentence: str


def main() -> int:
    """Print the rules that migrations break. Return 1 if there are any, else 0."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pipedai.settings")
    django.setup()
    config = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    found = list(findings(config["tool"]["migration-check"]["exempt-up-to"]))
    for finding in found:
        print(f"{finding.migration}: {finding.rule}: {finding.sentence}")
    if found:
        print('CONTRIBUTING.md, "A migration", says how to do it safely.')
    return bool(found)


def findings(exempt_up_to: dict[str, str]) -> Iterator[Finding]:
    """Yield the rules that migrations after `exempt_up_to` break, unless `safe_because` gives a reason for it."""
    loader = MigrationLoader(connection, replace_migrations=False)

    def is_checked(node: tuple[str, str]) -> bool:
        is_ours = Path(apps.get_app_config(node[0]).path).parent == _ROOT
        return is_ours and node[1] > exempt_up_to.get(node[0], "")

    # Django makes classes of all models when the first migration is checked, so those that are not checked come before.
    plans = map(loader.graph.forwards_plan, sorted(loader.graph.nodes))
    order = sorted(dict.fromkeys(itertools.chain(*plans)), key=is_checked)
    state = ProjectState(real_apps=loader.unmigrated_apps)
    for app, name in order:
        migration = loader.disk_migrations[app, name]
        if not is_checked((app, name)):
            migration.mutate_state(state, preserve=False)
            continue
        reasons: dict[str, str] = getattr(migration, "safe_because", {})
        rules = set()
        for rule, sentence in unsafe(migration, state):
            rules.add(rule)
            if not reasons.get(rule):
                yield Finding(f"{app}.{name}", rule, sentence)
        for rule in sorted(reasons.keys() - rules):
            yield Finding(f"{app}.{name}", rule, "It is in safe_because, and breaks no such rule.")
    yield from never_validated(loader.disk_migrations)


def never_validated(disk_migrations: dict[tuple[str, str], Any]) -> Iterator[Finding]:
    """Yield the constraints that were added as NOT VALID and never validated, so that old rows may break them."""
    pending: dict[tuple[str, str], str] = {}
    for (app, name), migration in sorted(disk_migrations.items()):
        for operation in migration.operations:
            if isinstance(operation, AddConstraintNotValid):
                pending[app, operation.constraint.name] = name
            elif isinstance(operation, (ValidateConstraint, migrations.RemoveConstraint)):
                pending.pop((app, operation.name), None)
    for (app, constraint), name in pending.items():
        sentence = f"Add a migration with ValidateConstraint for {constraint}."
        yield Finding(f"{app}.{name}", "never-validated", sentence)


def unsafe(migration: Any, state: ProjectState) -> Iterator[tuple[str, str]]:
    """Yield each rule that the migration breaks when applied to this `state` of the models, which it changes, with the
    reason.
    """
    yield from _unsafe_operations(migration.operations)
    with connection.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        migration.apply(state, editor, collect_sql=True)
        statements = "\n".join(editor.collected_sql)
    if _MOVES_ROWS.search(statements):
        yield (
            "data-migration",
            "Moving rows holds locks for as long as it takes: do it in batches, from a command.",
        )
    if migration.atomic:
        statements = f"BEGIN;\n{statements}\nCOMMIT;"
    yield from _squawk(statements)


def _unsafe_operations(operations: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield the broken rules that the tool squawk can't see, because it reads only SQL."""
    created = {op.name.lower() for op in operations if isinstance(op, migrations.CreateModel)}
    for operation in operations:
        if isinstance(operation, migrations.AddField):
            field = operation.field
            required = not field.null and not field.many_to_many and not field.has_db_default()
            if required and operation.model_name.lower() not in created:
                sentence = (
                    f"The release before inserts rows without {operation.name}, and Django drops its"
                    " default after adding it: make it nullable, or give it a db_default."
                )
                yield "default-of-new-code-alone", sentence
        elif isinstance(operation, migrations.RunPython):
            yield (
                "data-migration",
                "Nobody can see what Python does to tables in use: move rows from a command.",
            )


def _squawk(statements: str) -> Iterator[tuple[str, str]]:
    done = subprocess.run(
        [_SQUAWK, "--pg-version", _POSTGRES, "--reporter", "json", "--stdin-filepath", "x.sql"],
        input=statements,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"squawk failed: {done.stderr.strip()}")
    for found in json.loads(done.stdout or "[]"):
        if found["rule_name"] not in _IGNORED:
            sentence = " ".join(filter(None, (found["message"], found["help"])))
            yield found["rule_name"], sentence


if __name__ == "__main__":
    sys.exit(main())
