"""Adds the index that finds an environment's workers of one account."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("workers", "0007_pools")]

    operations = [
        AddIndexConcurrently(
            model_name="worker",
            index=models.Index(
                condition=models.Q(("account_id__isnull", False), ("deleted_at__isnull", True)),
                fields=["environment", "account_id"],
                name="worker_of_account",
            ),
        ),
    ]
