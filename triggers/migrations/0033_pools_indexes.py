"""Adds the indexes by which a poll finds the runs of its pools, and the scheduler the runs that it ends in the queue."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0032_pools_valid")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("pool__isnull", False), ("status", "queued")),
                fields=["pool", "pool_from", "id"],
                name="run_polled_of_pool",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("start_deadline_at__isnull", False), ("status", "queued")),
                fields=["start_deadline_at"],
                name="run_start_deadline",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("had_effects", True), ("status", "queued")),
                fields=["resume_until"],
                name="run_resume_until",
            ),
        ),
        AddIndexConcurrently(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(("deleted_at__isnull", True), ("pool__isnull", False)),
                fields=["pool"],
                name="trigger_of_pool",
            ),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS run_one_in_place"
                    " ON run (trigger_id, place, environment_id) WHERE place IS NOT NULL",
                    "DROP INDEX CONCURRENTLY IF EXISTS run_one_in_place",
                ),
            ],
            state_operations=[
                migrations.AddConstraint(
                    model_name="run",
                    constraint=models.UniqueConstraint(
                        condition=models.Q(("place__isnull", False)),
                        fields=("trigger", "place", "environment"),
                        name="run_one_in_place",
                    ),
                ),
            ],
        ),
    ]
