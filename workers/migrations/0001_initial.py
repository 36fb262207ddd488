"""Makes the tables of workers, pools and enrollments."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models
from django.db.models.functions import Lower, Now

from pipedai.ids import new_id
from pipedai.table_rules import tenant_key, tenant_parent

# Columns that many tables have.
ID = ("id", models.UUIDField(default=new_id, editable=False, primary_key=True, serialize=False))
ENVIRONMENT = (
    "environment",
    models.ForeignKey(
        db_index=False, on_delete=models.PROTECT, related_name="+", to="workspaces.environment"
    ),
)
CREATED_AT = ("created_at", models.DateTimeField(db_default=Now(), editable=False))


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("workspaces", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pool",
            fields=[
                ID,
                ENVIRONMENT,
                ("name", models.CharField(max_length=200)),
                ("description", models.CharField(blank=True, max_length=2000)),
                CREATED_AT,
                ("deleted_at", models.DateTimeField(null=True)),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "pool",
                "indexes": [
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="pool_listed",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("environment"),
                        Lower("name"),
                        condition=models.Q(("deleted_at__isnull", True)),
                        name="pool_name_free_in_environment",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False), ("deleted_at__isnull", True)),
                        fields=("environment", "key"),
                        name="pool_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="workers",
                        to="workspaces.environment",
                    ),
                ),
                ("label", models.CharField(max_length=255)),
                ("hostname", models.CharField(max_length=255)),
                ("os", models.CharField(max_length=255)),
                ("version", models.CharField(max_length=64)),
                (
                    "auth_mode",
                    models.CharField(
                        choices=[("claude_max", "Claude Max"), ("api_key", "Api Key")],
                        max_length=10,
                    ),
                ),
                ("account_id", models.CharField(max_length=64, null=True)),
                ("limited_until", models.DateTimeField(null=True)),
                ("max_concurrency", models.PositiveSmallIntegerField()),
                ("token_digest", models.BinaryField(max_length=32, null=True, unique=True)),
                ("registered_from", models.GenericIPAddressField(null=True)),
                (
                    "host_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.apikey",
                    ),
                ),
                ("is_streamed", models.BooleanField(db_default=False)),
                ("disabled_at", models.DateTimeField(null=True)),
                ("unapproved_since", models.DateTimeField(null=True)),
                ("last_seen_at", models.DateTimeField(null=True)),
                ("process_id", models.CharField(max_length=64, null=True)),
                ("signed_off_at", models.DateTimeField(null=True)),
                CREATED_AT,
                ("deleted_at", models.DateTimeField(null=True)),
                ("takes_approvals", models.BooleanField(db_default=False, default=False)),
            ],
            options={
                "db_table": "worker",
                "indexes": [
                    models.Index(fields=["environment", "created_at", "id"], name="worker_listed"),
                    models.Index(
                        condition=models.Q(
                            ("account_id__isnull", False), ("deleted_at__isnull", True)
                        ),
                        fields=["environment", "account_id"],
                        name="worker_of_account",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("environment"),
                        Lower("hostname"),
                        condition=models.Q(("deleted_at__isnull", True)),
                        name="worker_hostname_in_environment",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("max_concurrency__gte", 1), ("max_concurrency__lte", 1000)
                        ),
                        name="worker_max_concurrency",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("auth_mode__in", ("claude_max", "api_key"))),
                        name="worker_auth_mode",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("deleted_at__isnull", True),
                            ("token_digest__isnull", True),
                            _connector="OR",
                        ),
                        name="worker_deleted_has_no_token",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PoolMember",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "worker_id",
                        "pool_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="members",
                        to="workers.pool",
                    ),
                ),
                CREATED_AT,
            ],
            options={
                "db_table": "pool_member",
                "indexes": [models.Index(fields=["pool", "worker"], name="pool_member_of_pool")],
            },
        ),
        migrations.CreateModel(
            name="Enrollment",
            fields=[
                ID,
                (
                    "environment",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="enrollments",
                        to="workspaces.environment",
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("code", "Code"), ("device", "Device"), ("key", "Key")],
                        max_length=6,
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
                    "decided_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=models.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                CREATED_AT,
                ("expires_at", models.DateTimeField()),
                ("approved_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("consumed_at", models.DateTimeField(null=True)),
                ("pool_ids", ArrayField(base_field=models.UUIDField(), null=True, size=None)),
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                ("role", models.CharField(max_length=8, null=True)),
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
                            ("kind__in", ("device", "key")),
                            ("revoked_at__isnull", True),
                        ),
                        fields=["asked_from"],
                        name="enrollment_pending",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("approved_at__isnull", True),
                            ("environment__isnull", False),
                            _connector="OR",
                        ),
                        name="enrollment_approved_for_an_environment",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("auth_mode__in", ("claude_max", "api_key"))),
                        name="enrollment_auth_mode",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind", "code"), ("pool_ids__isnull", True), _connector="OR"
                        ),
                        name="enrollment_only_code_joins_pools",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("approved_at__isnull", False),
                                ("kind", "code"),
                                ("user_code_digest__isnull", True),
                            ),
                            models.Q(
                                ("kind__in", ("device", "key")), ("user_code_digest__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="enrollment_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("consumed_at__isnull", True), ("worker__isnull", True)),
                            models.Q(
                                models.Q(
                                    ("kind", "key"), ("worker__isnull", False), _connector="XOR"
                                ),
                                ("approved_at__isnull", False),
                                ("consumed_at__isnull", False),
                                ("revoked_at__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="enrollment_consumed_once_approved",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("approved_at__isnull", False),
                                ("kind", "key"),
                                ("role__isnull", False),
                            ),
                            models.Q(
                                models.Q(
                                    ("approved_at__isnull", True),
                                    models.Q(("kind", "key"), _negated=True),
                                    _connector="OR",
                                ),
                                ("role__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="enrollment_role_of_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ENVIRONMENT,
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                ("type", models.CharField(max_length=32)),
                ("at", models.DateTimeField(db_default=Now(), editable=False)),
                ("data", models.JSONField(default=dict)),
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
                        fields=("worker", "type", "at", "environment"),
                        name="worker_event_one_silence",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerSilence",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ENVIRONMENT,
                (
                    "worker",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workers.worker",
                    ),
                ),
                ("last_seen_at", models.DateTimeField(null=True)),
                ("offline_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
            ],
            options={
                "db_table": "worker_silence",
            },
        ),
        tenant_parent("pool", "pool"),
        tenant_parent("worker", "worker"),
        # Calls update `last_seen_at` every few seconds, in place where the page has room.
        migrations.RunSQL("ALTER TABLE worker SET (fillfactor = 70)", migrations.RunSQL.noop),
        tenant_key("enrollment", "worker_id", "worker"),
        tenant_key("pool_member", "pool_id", "pool"),
        tenant_key("pool_member", "worker_id", "worker"),
        tenant_key("worker", "host_key_id", "api_key"),
        tenant_key("worker_event", "worker_id", "worker"),
        tenant_key("worker_silence", "worker_id", "worker"),
    ]
