"""Validates what 0003 added to a table in use."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0003_enrollment")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE worker VALIDATE CONSTRAINT worker_host_key_in_environment",
            migrations.RunSQL.noop,
        ),
    ]
