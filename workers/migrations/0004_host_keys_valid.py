"""Validates the foreign keys that 0003 added, not valid, to tables in use."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0003_enrollment")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE worker VALIDATE CONSTRAINT worker_host_key_in_environment",
            migrations.RunSQL.noop,
        ),
    ]
