"""Replaces the index of ended runs by one that also contains what the statistics add up and group by.

The new index has all columns of the old one, so the release before, whose overview and pruning used the old index, reads
the new one in the same way.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0022_unique_in_environment_alone")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["environment", "ended_at"],
                include=[
                    "status",
                    "source",
                    "trigger",
                    "worker",
                    "model",
                    "started_at",
                    "cost_usd",
                    "input_tokens",
                    "output_tokens",
                ],
                name="run_ended",
            ),
        ),
        RemoveIndexConcurrently(model_name="run", name="run_ended_summed"),
    ]
