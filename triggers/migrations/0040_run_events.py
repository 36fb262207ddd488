"""Adds the tables of run events and of streams' watches, and whether a trigger's runs record events (SPEC §18)."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0038_budget_windows_pruned"),
        ("workspaces", "0010_invitations"),
    ]

    operations = [
        migrations.AddField(
            model_name="trigger",
            name="record_events",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.CreateModel(
            name="EnvironmentWatch",
            fields=[
                (
                    "environment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="workspaces.environment",
                    ),
                ),
                ("watched_until", models.DateTimeField()),
            ],
            options={"db_table": "environment_watch"},
        ),
        migrations.CreateModel(
            name="RunEventDay",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "environment_id",
                        "day",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("day", models.DateField()),
                ("bytes", models.BigIntegerField()),
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
            options={"db_table": "run_event_day"},
        ),
        migrations.CreateModel(
            name="RunEventLog",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="events",
                        serialize=False,
                        to="triggers.run",
                    ),
                ),
                ("next_seq", models.BigIntegerField(db_default=1, default=1)),
                ("stored", models.PositiveIntegerField(db_default=0, default=0)),
                ("bytes", models.PositiveIntegerField(db_default=0, default=0)),
                ("is_truncated", models.BooleanField(db_default=False, default=False)),
                ("first_at", models.DateTimeField(null=True)),
                ("last_at", models.DateTimeField(null=True)),
                ("watched_until", models.DateTimeField(null=True)),
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
                "db_table": "run_event_log",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("stored__lt", models.F("next_seq")), ("stored__lte", 20001)
                        ),
                        name="run_event_log_counts",
                    )
                ],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE run_event_log ADD CONSTRAINT run_event_log_run_in_environment "
            "FOREIGN KEY (environment_id, run_id) REFERENCES run (environment_id, id)",
            "ALTER TABLE run_event_log DROP CONSTRAINT run_event_log_run_in_environment",
        ),
        # Each call that stores events changes one row of each of these two tables. The free space lets PostgreSQL put
        # the new version beside the old one, without a new entry in the index.
        migrations.RunSQL(
            "ALTER TABLE run_event_log SET (fillfactor = 50); ALTER TABLE run_event_day SET (fillfactor = 10)",
            "ALTER TABLE run_event_log RESET (fillfactor); ALTER TABLE run_event_day RESET (fillfactor)",
        ),
    ]
