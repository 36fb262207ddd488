"""Exit codes beyond 32 bits signed, which Windows has. PostgreSQL rewrites the table for it, locked: nothing of ours
is released yet, so there is no large one."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0007_delivery_attempts")]

    operations = [
        migrations.AlterField(
            model_name="run", name="exit_code", field=models.BigIntegerField(null=True)
        ),
    ]
