"""Adds the counts of a run's tool calls, and what a trigger does with them (SPEC §18). 0018 validates the constraint."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("triggers", "0015_stretches_valid")]

    operations = [
        migrations.AddField(
            model_name="trigger",
            name="retry_after_effects",
            field=models.BooleanField(db_default=True, default=True),
        ),
        *(
            migrations.AddField(
                model_name="run", name=f"tool_calls_{part}", field=models.IntegerField(null=True)
            )
            for part in ("total", "effects", "unknown")
        ),
        AddConstraintNotValid(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("tool_calls_effects__isnull", True),
                        ("tool_calls_total__isnull", True),
                        ("tool_calls_unknown__isnull", True),
                    ),
                    models.Q(
                        ("tool_calls_effects__gte", 0),
                        ("tool_calls_effects__isnull", False),
                        ("tool_calls_effects__lte", models.F("tool_calls_total")),
                        ("tool_calls_total__isnull", False),
                        ("tool_calls_unknown__gte", 0),
                        ("tool_calls_unknown__isnull", False),
                        ("tool_calls_unknown__lte", models.F("tool_calls_total")),
                    ),
                    _connector="OR",
                ),
                name="run_tool_calls",
            ),
        ),
    ]
