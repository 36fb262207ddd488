"""Validates the constraints of 0031. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0031_pools")]

    operations = [
        ValidateConstraint(model_name="run", name="run_ended"),
        ValidateConstraint(model_name="run", name="run_times_of_state"),
        ValidateConstraint(model_name="run", name="run_in_place_is_held"),
        ValidateConstraint(model_name="run", name="run_pool_from"),
        ValidateConstraint(model_name="run", name="run_resuming_is_a_retry"),
        ValidateConstraint(model_name="tick", name="tick_missed_is_counted"),
        ValidateConstraint(model_name="tick", name="tick_decision"),
        ValidateConstraint(model_name="trigger", name="trigger_prefer_seconds"),
        ValidateConstraint(model_name="trigger", name="trigger_start_deadline_seconds"),
        ValidateConstraint(model_name="trigger", name="trigger_max_concurrent_runs"),
        ValidateConstraint(model_name="trigger", name="trigger_retry_mode"),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_{column}_in_environment",
                migrations.RunSQL.noop,
            )
            for table, column in (("trigger", "pool"), ("run", "pool"), ("run", "avoided_worker"))
        ),
    ]
