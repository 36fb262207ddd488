"""Adds the indexes by which the runs of a pool are listed."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0033_pools_indexes")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("pool__isnull", False)),
                fields=["pool", "queued_at", "id"],
                name="run_of_pool",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
                fields=["pool", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_pool_and_source",
            ),
        ),
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(
                    ("ended_at__isnull", False),
                    ("fault_class", "infra"),
                    ("pool__isnull", False),
                    ("retried", False),
                ),
                fields=["pool", "status", "queued_at", "id"],
                name="run_final_fault_of_pool",
            ),
        ),
    ]
