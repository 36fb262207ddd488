"""Finds what hangs on a run by its id: without an index each run that is removed would have its foreign keys looked
for in the whole table.
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
