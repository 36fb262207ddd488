"""Makes room for exit codes that need more than 31 bits, which Windows has.

PostgreSQL locks and rewrites the whole table for this. That was acceptable before the first release, when there were no
large tables.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0007_delivery_attempts")]

    operations = [
        migrations.AlterField(
            model_name="run", name="exit_code", field=models.BigIntegerField(null=True)
        ),
    ]
