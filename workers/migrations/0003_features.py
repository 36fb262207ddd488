from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("workers", "0002_problems"),)

    operations = (
        migrations.AddField(
            model_name="worker",
            name="features",
            field=ArrayField(
                base_field=models.CharField(max_length=16), db_default=[], default=list, size=None
            ),
        ),
        # The release before still reads and writes the column, which has a default. A later migration drops it.
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.RemoveField(model_name="worker", name="takes_approvals")]
        ),
    )
