from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("notices", "0001_initial"),)

    operations = (
        AddIndexConcurrently(
            "channel",
            Index(
                condition=Q(("summary_due_at__isnull", False)),
                fields=["environment", "summary_due_at"],
                name="channel_summary_next",
            ),
        ),
        RemoveIndexConcurrently("channel", "channel_summary_due"),
        AddIndexConcurrently(
            "incident",
            Index(
                condition=Q(("remind_at__isnull", False)),
                fields=["environment", "remind_at"],
                name="incident_remind_next",
            ),
        ),
        RemoveIndexConcurrently("incident", "incident_reminded"),
    )
