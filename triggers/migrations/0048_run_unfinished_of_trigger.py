"""Orders the unfinished runs of a trigger by when they are due, so that a poll reads only the first of them."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0047_run_reservation_is_cap")]

    operations = [
        AddIndexConcurrently(
            model_name="run",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", True)),
                fields=["trigger", "available_at", "id"],
                name="run_unfinished_of_trigger",
            ),
        ),
    ]
