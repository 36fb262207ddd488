"""Adds indexes by which each page of a filtered list of runs or ticks is read in the order of the list.

Another index is for the overview, which adds up the costs of a month. 0030 removes the indexes that these replace.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0028_health_valid")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["worker", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_worker_and_source",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["trigger", "worker", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_trigger_and_worker",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(
                    ("ended_at__isnull", False), ("fault_class", "infra"), ("retried", False)
                ),
                fields=["trigger", "worker", "status", "queued_at", "id"],
                name="run_final_fault_of_pair",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["environment", "ended_at"],
                include=["cost_usd"],
                name="run_ended_cost",
            ),
        ),
        AddIndexConcurrently(
            model_name="tick",
            index=models.Index(
                fields=["trigger", "decision", "tick_at", "id"], name="tick_by_decision"
            ),
        ),
    ]
