"""Leaves room on each page of `worker`, since calls update `last_seen_at` every few seconds (heap-only updates)."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE worker SET (fillfactor = 70)", "ALTER TABLE worker RESET (fillfactor)"
        ),
    ]
