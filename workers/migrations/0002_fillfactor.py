"""Worker rows are updated every few seconds (`last_seen_at`): keep room for updates in place."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE worker SET (fillfactor = 70)", "ALTER TABLE worker RESET (fillfactor)"
        ),
    ]
