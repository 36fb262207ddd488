from django.db import migrations


class Migration(migrations.Migration):
    """Drops the column that `features` has replaced, and which no release reads that knows `features`."""

    safe_because = {
        "ban-drop-column": "No release names the column that knows `features`, and each names the columns that it reads.",
    }

    dependencies = (("workers", "0003_features"),)

    operations = (
        migrations.RunSQL(
            "ALTER TABLE worker DROP COLUMN IF EXISTS takes_approvals",
            "ALTER TABLE worker ADD COLUMN takes_approvals boolean NOT NULL DEFAULT false",
        ),
    )
