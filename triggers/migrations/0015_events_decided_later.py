from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import CheckConstraint, Q


class Migration(migrations.Migration):
    dependencies = (("triggers", "0014_indexes_of_turns"),)
    safe_because = {"ban-drop-constraint": "The new one of this name only lets more rows pass."}

    operations = (
        migrations.AddField("event", "requested_by", models.UUIDField(null=True)),
        migrations.RemoveConstraint("event", "event_of_source_or_run"),
        AddConstraintNotValid(
            "event",
            CheckConstraint(
                condition=Q(
                    ("body__isnull", False), ("run__isnull", True), ("source__isnull", False)
                )
                | Q(
                    ("body__isnull", True),
                    ("duplicates", 0),
                    ("given_id__isnull", True),
                    ("replay_of__isnull", True),
                    ("requested_by__isnull", True),
                    ("run__isnull", False),
                    ("source__isnull", True),
                    ("type__isnull", True),
                ),
                name="event_of_source_or_run",
            ),
        ),
    )
