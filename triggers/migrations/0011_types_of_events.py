from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("triggers", "0010_refused_requests"),)

    operations = (
        AddIndexConcurrently(
            "event",
            Index(
                condition=Q(("source__isnull", False), ("type__isnull", False)),
                fields=["source", "type", "-received_at"],
                name="event_types",
            ),
        ),
    )
