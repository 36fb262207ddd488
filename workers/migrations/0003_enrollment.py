"""Adds the tables of enrollments and of workers' events, and the columns of `worker` that they need."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import pipedai.ids

# (table, column, referenced table, whether the table has rows already: 0004 validates those). See triggers 0002.
KEYS = (
    ("worker", "host_key_id", "api_key", True),
    ("enrollment", "worker_id", "worker", False),
    ("worker_event", "worker_id", "worker", False),
)


def add(table: str, column: str, target: str, later: bool) -> migrations.RunSQL:
    name = f"{table}_{column.removesuffix('_id')}_in_environment"
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} "
        f"FOREIGN KEY (environment_id, {column}) REFERENCES {target} (environment_id, id)"
        + (" NOT VALID" if later else ""),
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
    )


class Migration(migrations.Migration):
    dependencies = [
        ("workers", "0002_fillfactor"),
        ("workspaces", "0009_host_keys_valid"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="host_key",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="workspaces.apikey",
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="is_streamed",
            field=models.BooleanField(db_default=False),
        ),
        migrations.CreateModel(
            name="Enrollment",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("code", "Code"), ("device", "Device")], max_length=6
                    ),
                ),
                ("label", models.CharField(max_length=255, null=True)),
                (
                    "auth_mode",
                    models.CharField(
                        choices=[("claude_max", "Claude Max"), ("api_key", "Api Key")],
                        max_length=10,
                    ),
                ),
                ("code_digest", models.BinaryField(max_length=32, unique=True)),
                ("user_code_digest", models.BinaryField(max_length=32, null=True, unique=True)),
                ("last_four", models.CharField(max_length=4)),
                ("asked_from", models.GenericIPAddressField(null=True)),
                ("asked_by", models.CharField(max_length=255, null=True)),
                ("poll_seconds", models.PositiveSmallIntegerField(default=5)),
                ("polled_at", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("expires_at", models.DateTimeField()),
                ("approved_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("consumed_at", models.DateTimeField(null=True)),
                (
                    "decided_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="enrollments",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
            ],
            options={
                "db_table": "enrollment",
                "indexes": [
                    models.Index(
                        fields=["environment", "created_at", "id"], name="enrollment_listed"
                    ),
                    models.Index(
                        condition=models.Q(
                            ("approved_at__isnull", True),
                            ("kind", "device"),
                            ("revoked_at__isnull", True),
                        ),
                        fields=["asked_from"],
                        name="enrollment_pending",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("approved_at__isnull", False),
                                ("kind", "code"),
                                ("user_code_digest__isnull", True),
                            ),
                            models.Q(("kind", "device"), ("user_code_digest__isnull", False)),
                            _connector="OR",
                        ),
                        name="enrollment_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("approved_at__isnull", True),
                            ("environment__isnull", False),
                            _connector="OR",
                        ),
                        name="enrollment_approved_for_an_environment",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("consumed_at__isnull", True), ("worker__isnull", True)),
                            models.Q(
                                ("approved_at__isnull", False),
                                ("consumed_at__isnull", False),
                                ("revoked_at__isnull", True),
                                ("worker__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="enrollment_consumed_once_approved",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("auth_mode__in", ("claude_max", "api_key"))),
                        name="enrollment_auth_mode",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("type", models.CharField(max_length=32)),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("data", models.JSONField(default=dict)),
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
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
            ],
            options={
                "db_table": "worker_event",
                "indexes": [
                    models.Index(fields=["worker", "id"], name="worker_event_streamed"),
                    models.Index(fields=["at"], name="worker_event_prunable"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("type__in", ("poll.error", "worker.stopped"))),
                        fields=("worker", "type", "at"),
                        name="worker_event_silence_told_once",
                    )
                ],
            },
        ),
        *(add(*key) for key in KEYS),
    ]
