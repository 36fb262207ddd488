"""Validates the constraints of 0024. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0024_reruns")]

    operations = [
        ValidateConstraint(model_name="run", name="run_rerun_was_requested"),
        ValidateConstraint(model_name="tick", name="tick_blocked_was_skipped"),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_{column}_in_environment",
                migrations.RunSQL.noop,
            )
            for table, column in (("run", "rerun_of"), ("tick", "blocked_by"))
        ),
    ]
