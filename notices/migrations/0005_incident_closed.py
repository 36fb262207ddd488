"""Adds the index of an environment's closed incidents, so that their list reads none that is open."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("notices", "0004_notice_mailed_to")]

    operations = [
        AddIndexConcurrently(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", False)),
                fields=["environment", "opened_at", "id"],
                name="incident_closed",
            ),
        ),
    ]
