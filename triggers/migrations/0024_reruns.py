"""Adds the run that a rerun executes again, whether a retry follows a run, and the run that blocked a tick (SPEC §12).

The foreign keys contain the environment; see 0002. If the run that they name is pruned, the database empties the column.
0025 validates the constraints, and 0026 adds the indexes.
"""

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

# (table, column)
_KEYS = (("run", "rerun_of"), ("tick", "blocked_by"))


def _key(table: str, column: str) -> migrations.RunSQL:
    name = f"{table}_{column}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (environment_id, {column}_id)"
        f" REFERENCES run (environment_id, id) ON DELETE SET NULL ({column}_id) NOT VALID",
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [("triggers", "0023_run_ended")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="rerun_of",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="triggers.run",
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="retried",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="tick",
            name="blocked_by",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="triggers.run",
            ),
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rerun_of__isnull", True), ("source__in", ("manual", "api")), _connector="OR"
                ),
                name="run_rerun_was_requested",
            ),
        ),
        AddConstraintNotValid(
            model_name="tick",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("blocked_by__isnull", True), ("decision", "skipped_overlap"), _connector="OR"
                ),
                name="tick_blocked_was_skipped",
            ),
        ),
        *(_key(*each) for each in _KEYS),
    ]
