"""Adds when people are told about a trigger, and the table of what is known about its health (SPEC §14).

0028 validates the constraints of the table `trigger`.
"""

import django.db.models.deletion
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0026_filtered_lists"),
        ("workspaces", "0009_host_keys_valid"),
    ]

    operations = [
        migrations.AddField(
            model_name="trigger",
            name="alert_after_failures",
            field=models.PositiveSmallIntegerField(db_default=1, default=1, null=True),
        ),
        migrations.AddField(
            model_name="trigger",
            name="success_deadline_seconds",
            field=models.PositiveIntegerField(null=True),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("alert_after_failures__isnull", True),
                    models.Q(("alert_after_failures__gte", 1), ("alert_after_failures__lte", 100)),
                    _connector="OR",
                ),
                name="trigger_alert_after_failures",
            ),
        ),
        AddConstraintNotValid(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("success_deadline_seconds__isnull", True),
                    models.Q(
                        ("success_deadline_seconds__gte", 60),
                        ("success_deadline_seconds__lte", 2592000),
                    ),
                    _connector="OR",
                ),
                name="trigger_success_deadline_seconds",
            ),
        ),
        migrations.CreateModel(
            name="TriggerHealth",
            fields=[
                (
                    "trigger",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="judged",
                        serialize=False,
                        to="triggers.trigger",
                    ),
                ),
                ("counts_from", models.DateTimeField(null=True)),
                ("has_outcome", models.BooleanField(default=False)),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("is_failing", models.BooleanField(default=False)),
                ("late_since", models.DateTimeField(null=True)),
                ("check_at", models.DateTimeField(null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.environment",
                    ),
                ),
            ],
            options={
                "db_table": "trigger_health",
                "indexes": [
                    models.Index(
                        condition=models.Q(("check_at__isnull", False)),
                        fields=["check_at"],
                        name="trigger_health_due",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("is_failing", False),
                            models.Q(("failures__gte", 1), ("has_outcome", True)),
                            _connector="OR",
                        ),
                        name="trigger_health_failing_has_failures",
                    )
                ],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE trigger_health ADD CONSTRAINT trigger_health_trigger_in_environment "
            "FOREIGN KEY (environment_id, trigger_id) REFERENCES trigger (environment_id, id)",
            "ALTER TABLE trigger_health DROP CONSTRAINT trigger_health_trigger_in_environment",
        ),
    ]
