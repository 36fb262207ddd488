"""Adds indexes for lists of runs in one state: of a trigger, of a worker, and of those that have not ended.

It also adds statistics by which the planner knows that all runs of a trigger belong to one environment, and most of
them to one worker. Without these the planner expects few rows from two such conditions together, and reads and sorts
all of the many rows that it then gets.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0010_names")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", True)),
                fields=["environment", "status", "queued_at", "id"],
                name="run_unfinished_of_status",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["trigger", "status", "queued_at", "id"],
                name="run_of_trigger_and_status",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["worker", "status", "queued_at", "id"],
                name="run_of_worker_and_status",
            ),
        ),
        migrations.RunSQL(
            "CREATE STATISTICS run_belongs (dependencies) ON environment_id, trigger_id, worker_id FROM run",
            "DROP STATISTICS run_belongs",
        ),
    ]
