"""Adds the index by which pruning finds the sessions that expired long ago."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0002_session_address_digest")]

    operations = [
        AddIndexConcurrently(
            model_name="session",
            index=models.Index(fields=["expires_at"], name="session_expired"),
        ),
    ]
