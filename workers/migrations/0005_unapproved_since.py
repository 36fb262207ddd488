"""Adds `worker.unapproved_since`. It is NULL for the workers that exist, so they count as approved."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0004_host_keys_valid")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="unapproved_since",
            field=models.DateTimeField(null=True),
        ),
    ]
