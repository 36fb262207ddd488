"""Adds the index by which polls find the triggers that limit how many of their runs are held at once."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0041_run_event_batches")]

    operations = [
        AddIndexConcurrently(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(
                    ("deleted_at__isnull", True), ("max_concurrent_runs__isnull", False)
                ),
                fields=["environment"],
                name="trigger_limited",
            ),
        ),
    ]
