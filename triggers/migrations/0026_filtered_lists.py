"""Adds indexes for the filters of runs and ticks, for a trigger's last success, and for the foreign keys of 0024.

It also adds statistics by which the planner knows which ends, sources and retries of runs go together. Without these it
expects many runs that infrastructure ended and that no retry follows, and reads all runs in the order of their ends.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0025_reruns_valid")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["environment", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_source",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["trigger", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_trigger_and_source",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(
                    ("ended_at__isnull", False), ("fault_class", "infra"), ("retried", False)
                ),
                fields=["environment", "status", "queued_at", "id"],
                name="run_final_fault",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(
                    ("ended_at__isnull", False), ("fault_class", "infra"), ("retried", False)
                ),
                fields=["trigger", "status", "queued_at", "id"],
                name="run_final_fault_of_trigger",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(
                    ("ended_at__isnull", False), ("fault_class", "infra"), ("retried", False)
                ),
                fields=["worker", "status", "queued_at", "id"],
                name="run_final_fault_of_worker",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["trigger", "status", "ended_at", "id"],
                name="run_of_trigger_by_end",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("rerun_of__isnull", False)),
                fields=["rerun_of", "environment"],
                name="run_rerun",
            ),
        ),
        AddIndexConcurrently(
            model_name="tick",
            index=models.Index(
                condition=models.Q(("decision", "fired"), _negated=True),
                fields=["trigger", "decision", "tick_at", "id"],
                name="tick_of_decision",
            ),
        ),
        AddIndexConcurrently(
            model_name="tick",
            index=models.Index(
                condition=models.Q(("blocked_by__isnull", False)),
                fields=["blocked_by", "environment"],
                name="tick_blocked",
            ),
        ),
        migrations.RunSQL(
            "CREATE STATISTICS run_kinds (mcv) ON status, fault_class, source, retried FROM run",
            "DROP STATISTICS run_kinds",
        ),
    ]
