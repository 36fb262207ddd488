"""Adds the table of delivery attempts, with its foreign key as in 0002, and what a sender needs in the delivery table."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("triggers", "0006_run_ended_without_null"),
        ("workspaces", "0002_at_least_one_owner"),
    ]

    operations = [
        migrations.AddField(
            model_name="delivery",
            name="attempt_count",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.RemoveIndex(model_name="delivery", name="delivery_due"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status", "pending")),
                fields=["next_attempt_at", "host"],
                name="delivery_due_by_host",
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                fields=("environment", "id"), name="delivery_in_environment"
            ),
        ),
        migrations.CreateModel(
            name="DeliveryAttempt",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "delivery_id",
                        "n",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("n", models.PositiveSmallIntegerField()),
                ("at", models.DateTimeField()),
                ("status_code", models.PositiveSmallIntegerField(null=True)),
                ("duration_ms", models.PositiveIntegerField()),
                ("error", models.CharField(max_length=100, null=True)),
                ("response_body", models.CharField(max_length=1024, null=True)),
                (
                    "delivery",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="attempts",
                        to="triggers.delivery",
                    ),
                ),
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
                "db_table": "delivery_attempt",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status_code__isnull", False),
                            ("error__isnull", False),
                            _connector="OR",
                        ),
                        name="delivery_attempt_has_an_end",
                    )
                ],
            },
        ),
        migrations.RunSQL(
            "ALTER TABLE delivery_attempt ADD CONSTRAINT delivery_attempt_delivery_in_environment "
            "FOREIGN KEY (environment_id, delivery_id) REFERENCES delivery (environment_id, id)",
            "ALTER TABLE delivery_attempt DROP CONSTRAINT delivery_attempt_delivery_in_environment",
        ),
    ]
