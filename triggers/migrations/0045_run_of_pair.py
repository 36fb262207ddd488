"""Adds the index of a trigger's ended runs on one worker, under a condition that no other index of ended runs has.

PostgreSQL could take the index that 0046 removes for as good as that of the worker or the trigger alone, and read all
runs of one of them.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0044_run_waiting")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("fault_class__isnull", False)),
                fields=["trigger", "worker", "source", "status", "fault_class", "queued_at", "id"],
                name="run_of_pair_and_source",
            ),
        ),
    ]
