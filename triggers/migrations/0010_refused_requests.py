import django.db.models.deletion
from django.db import migrations, models

from pipedai.table_rules import tenant_key

_REASONS = (
    "unsigned",
    "bad_signature",
    "stale",
    "disabled",
    "malformed",
    "too_large",
    "too_many",
)


class Migration(migrations.Migration):
    dependencies = (("triggers", "0009_mcp_header_names"),)

    operations = (
        migrations.CreateModel(
            name="RefusedRequest",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "source_id",
                        "reason",
                        "hour",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
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
                (
                    "source",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="triggers.eventsource",
                    ),
                ),
                (
                    "reason",
                    models.CharField(
                        choices=[(each, each.replace("_", " ").title()) for each in _REASONS],
                        max_length=13,
                    ),
                ),
                ("hour", models.DateTimeField()),
                ("count", models.PositiveBigIntegerField()),
                ("last_at", models.DateTimeField()),
            ],
            options={
                "db_table": "refused_request",
                "indexes": [models.Index(fields=["hour"], name="refused_request_old")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("reason__in", list(_REASONS))),
                        name="refused_request_reason",
                    )
                ],
            },
        ),
        tenant_key("refused_request", "source_id", "event_source"),
    )
