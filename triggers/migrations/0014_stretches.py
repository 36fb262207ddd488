"""Lets one tick row stand for a stretch of ticks without a worker (SPEC §19). 0015 validates the constraint."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    safe_because = {
        "ban-drop-constraint": "it is made anew in the same transaction, and allows more",
    }
    dependencies = [("triggers", "0013_turns")]

    operations = [
        migrations.RemoveConstraint(model_name="tick", name="tick_missed_is_counted"),
        AddConstraintNotValid(
            model_name="tick",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("decision__in", ("skipped_missed", "skipped_no_worker")),
                        ("last_tick_at__gte", models.F("tick_at")),
                        ("missed_count__gte", 1),
                    ),
                    models.Q(
                        ("last_tick_at", models.F("tick_at")),
                        ("missed_count", 0),
                        models.Q(("decision", "skipped_missed"), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="tick_missed_is_counted",
            ),
        ),
    ]
