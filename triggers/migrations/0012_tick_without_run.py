from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.functions import Greatest


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0011_gated_triggers")]

    operations = [
        AddIndexConcurrently(
            model_name="tick",
            index=models.Index(
                models.F("environment"),
                Greatest("decided_at", "last_tick_at"),
                condition=models.Q(("run__isnull", True)),
                name="tick_without_run",
            ),
        ),
    ]
