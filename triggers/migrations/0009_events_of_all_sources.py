from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0008_reminders")]

    operations = [
        AddIndexConcurrently(
            model_name="event",
            index=models.Index(
                condition=models.Q(("source__isnull", False)),
                fields=["environment", "received_at", "id"],
                name="event_listed_of_all",
            ),
        ),
        AddIndexConcurrently(
            model_name="eventdecision",
            index=models.Index(
                condition=models.Q(("source__isnull", False)),
                fields=["environment", "decision", "received_at", "event"],
                name="event_decision_of_all_sources",
            ),
        ),
    ]
