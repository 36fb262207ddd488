"""Adds the indexes that pruning needs: without them PostgreSQL reads a whole table for each run that is removed.

It has to look for rows that refer to the run.
"""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0008_exit_code_of_64_bits")]

    operations = [
        AddIndexConcurrently(
            model_name="tick",
            index=models.Index(
                condition=models.Q(("run__isnull", False)), fields=["run"], name="tick_of_run"
            ),
        ),
        AddIndexConcurrently(
            model_name="idempotencykey",
            index=models.Index(fields=["run"], name="idempotency_key_of_run"),
        ),
    ]
