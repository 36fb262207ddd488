"""Finds the runs of one state among many others: of a trigger, of a worker, and those that have not ended.

And tells the planner that a trigger's runs are those of one environment and mostly of one worker: it took two such
conditions for a narrow choice, and read and sorted all that they let pass.
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
