"""Makes the tables of channels, incidents and notices."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models
from django.db.models.functions import Now

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


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("workspaces", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="RefusedAddress",
            fields=[
                ("address", models.CharField(max_length=254, primary_key=True, serialize=False)),
                ("refused_at", models.DateTimeField(db_default=Now(), editable=False)),
            ],
            options={
                "db_table": "refused_address",
            },
        ),
        migrations.CreateModel(
            name="Channel",
            fields=[
                ID,
                ENVIRONMENT,
                ("name", models.CharField(max_length=200)),
                (
                    "kind",
                    models.CharField(
                        choices=[("email", "Email"), ("webhook", "Webhook"), ("slack", "Slack")],
                        max_length=7,
                    ),
                ),
                (
                    "emails",
                    ArrayField(
                        base_field=models.CharField(max_length=254), default=list, size=None
                    ),
                ),
                ("url", models.BinaryField(null=True)),
                (
                    "url_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("host", models.CharField(db_default="", default="", max_length=255)),
                ("secret", models.BinaryField(null=True)),
                (
                    "secret_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                ("events", ArrayField(base_field=models.CharField(max_length=32), size=None)),
                ("enabled", models.BooleanField(default=True)),
                ("created_by", models.UUIDField(null=True)),
                ("created_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("updated_at", models.DateTimeField(db_default=Now())),
                ("deleted_at", models.DateTimeField(null=True)),
                ("failing_since", models.DateTimeField(null=True)),
                ("last_error", models.CharField(max_length=100, null=True)),
                ("dropped_count", models.PositiveIntegerField(db_default=0, default=0)),
                ("summary", models.JSONField(null=True)),
                ("summary_due_at", models.DateTimeField(null=True)),
                ("summary_since", models.DateTimeField(null=True)),
                (
                    "tells_when",
                    models.JSONField(db_default=models.Value("always", models.JSONField())),
                ),
                ("trigger_ids", ArrayField(base_field=models.UUIDField(), null=True, size=None)),
                ("key", models.CharField(max_length=64, null=True)),
                ("managed_by", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "channel",
                "indexes": [
                    models.Index(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=["environment", "created_at", "id"],
                        name="channel_listed",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("deleted_at__isnull", True),
                            ("enabled", True),
                            ("failing_since__isnull", False),
                        ),
                        fields=["id"],
                        name="channel_failing",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("deleted_at__isnull", True),
                            ("enabled", True),
                            ("events__overlap", ["run.ended", "run.result"]),
                        ),
                        fields=["environment"],
                        name="channel_of_outcomes",
                    ),
                    models.Index(
                        condition=models.Q(("summary_due_at__isnull", False)),
                        fields=["summary_due_at"],
                        name="channel_summary_due",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ("email", "webhook", "slack"))),
                        name="channel_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("deleted_at__isnull", False),
                            models.Q(
                                ("emails__len__gte", 1), ("kind", "email"), ("url__isnull", True)
                            ),
                            models.Q(
                                models.Q(("kind", "email"), _negated=True),
                                ("emails__len", 0),
                                ("url__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="channel_has_a_target",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("url__isnull", True), ("url_key__isnull", True)),
                            models.Q(("url__isnull", False), ("url_key__isnull", False)),
                            _connector="OR",
                        ),
                        name="channel_url_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("secret__isnull", True), ("secret_key__isnull", True)),
                            models.Q(
                                ("kind", "webhook"),
                                ("secret__isnull", False),
                                ("secret_key__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="channel_secret_has_a_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("failing_since__isnull", False),
                            ("last_error__isnull", True),
                            _connector="OR",
                        ),
                        name="channel_error_has_a_time",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("summary_due_at__isnull", True), ("summary_since__isnull", True)
                            ),
                            models.Q(
                                ("deleted_at__isnull", True),
                                ("enabled", True),
                                ("summary__isnull", False),
                                ("summary_due_at__isnull", False),
                                ("summary_since__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="channel_summary_is_due",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False), ("deleted_at__isnull", True)),
                        fields=("environment", "key"),
                        name="channel_has_own_key",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Incident",
            fields=[
                ID,
                ENVIRONMENT,
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("trigger_failing", "Trigger Failing"),
                            ("trigger_late", "Trigger Late"),
                            ("worker_offline", "Worker Offline"),
                            ("pool_offline", "Pool Offline"),
                            ("webhook_dead", "Webhook Dead"),
                            ("budget_reached", "Budget Reached"),
                            ("connection_needs_login", "Connection Needs Login"),
                        ],
                        max_length=22,
                    ),
                ),
                (
                    "subject_type",
                    models.CharField(
                        choices=[
                            ("trigger", "Trigger"),
                            ("worker", "Worker"),
                            ("pool", "Pool"),
                            ("budget", "Budget"),
                            ("connection", "Connection"),
                        ],
                        max_length=10,
                    ),
                ),
                ("subject_id", models.UUIDField()),
                ("subject_name", models.CharField(max_length=255)),
                ("run_id", models.UUIDField(null=True)),
                ("message", models.CharField(max_length=300)),
                ("opened_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("closed_at", models.DateTimeField(null=True)),
                ("acknowledged_at", models.DateTimeField(null=True)),
                ("acknowledged_by", models.UUIDField(null=True)),
                ("notice_count", models.PositiveIntegerField(db_default=0, default=0)),
                ("reminder_count", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("remind_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "incident",
                "indexes": [
                    models.Index(fields=["environment", "opened_at", "id"], name="incident_listed"),
                    models.Index(
                        condition=models.Q(("closed_at__isnull", True)),
                        fields=["environment", "opened_at", "id"],
                        name="incident_open",
                    ),
                    models.Index(
                        condition=models.Q(("closed_at__isnull", False)),
                        fields=["environment", "opened_at", "id"],
                        name="incident_closed",
                    ),
                    models.Index(
                        fields=["environment", "kind", "opened_at", "id"], name="incident_of_kind"
                    ),
                    models.Index(
                        fields=["subject_id", "opened_at", "id"], name="incident_of_subject"
                    ),
                    models.Index(
                        condition=models.Q(("remind_at__isnull", False)),
                        fields=["remind_at"],
                        name="incident_reminded",
                    ),
                    models.Index(
                        condition=models.Q(("closed_at__isnull", True)),
                        fields=["kind", "id"],
                        name="incident_watched",
                    ),
                    models.Index(
                        condition=models.Q(("closed_at__isnull", False)),
                        fields=["closed_at"],
                        name="incident_prunable",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("closed_at__isnull", True)),
                        fields=("subject_id", "kind", "environment"),
                        name="incident_one_open",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("closed_at__isnull", True),
                            ("closed_at__gte", models.F("opened_at")),
                            _connector="OR",
                        ),
                        name="incident_closed_after_opening",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("acknowledged_by__isnull", True),
                            ("acknowledged_at__isnull", False),
                            _connector="OR",
                        ),
                        name="incident_acknowledged_has_a_time",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("remind_at__isnull", True),
                            models.Q(
                                ("acknowledged_at__isnull", True), ("closed_at__isnull", True)
                            ),
                            _connector="OR",
                        ),
                        name="incident_reminded_is_open",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "kind__in",
                                [
                                    "trigger_failing",
                                    "trigger_late",
                                    "worker_offline",
                                    "pool_offline",
                                    "webhook_dead",
                                    "budget_reached",
                                    "connection_needs_login",
                                ],
                            )
                        ),
                        name="incident_kind",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "subject_type__in",
                                ["trigger", "worker", "pool", "budget", "connection"],
                            )
                        ),
                        name="incident_subject_type",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AskedAddress",
            fields=[
                ID,
                ENVIRONMENT,
                ("address", models.CharField(max_length=254)),
                ("asked_by", models.UUIDField()),
                ("asked_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("confirmed_at", models.DateTimeField(null=True)),
                ("refused_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "asked_address",
                "indexes": [
                    models.Index(fields=["asked_by", "asked_at"], name="asked_address_by_user"),
                    models.Index(
                        fields=["environment", "asked_at"], name="asked_address_of_environment"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("address", "environment"), name="asked_address_once_an_environment"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="UntoldOutcome",
            fields=[
                ID,
                ("run_id", models.UUIDField()),
                ENVIRONMENT,
            ],
            options={
                "db_table": "untold_outcome",
                "indexes": [models.Index(fields=["environment", "id"], name="untold_outcome_next")],
            },
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                ID,
                ("host", models.CharField(max_length=255)),
                ("next_attempt_at", models.DateTimeField(db_default=Now(), null=True)),
                ("attempt_count", models.PositiveSmallIntegerField(db_default=0, default=0)),
                ("created_at", models.DateTimeField(db_default=Now(), editable=False)),
                ("delivered_at", models.DateTimeField(null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("delivered", "Delivered"),
                            ("dead", "Dead"),
                            ("digested", "Digested"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ENVIRONMENT,
                (
                    "channel",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="notices",
                        to="notices.channel",
                    ),
                ),
                ("event", models.CharField(max_length=32)),
                ("incident_id", models.UUIDField(null=True)),
                ("run_id", models.UUIDField(null=True)),
                ("address", models.CharField(db_default="", default="", max_length=254)),
                ("body", models.TextField()),
                ("send_at", models.DateTimeField(db_default=Now())),
                ("digest_id", models.UUIDField(null=True)),
                ("approval_id", models.UUIDField(null=True)),
                ("tells_results", models.BooleanField(db_default=False, default=False)),
            ],
            options={
                "db_table": "notice",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["next_attempt_at", "host"],
                        name="notice_due_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["environment", "host", "next_attempt_at"],
                        name="notice_pending_by_host",
                    ),
                    models.Index(fields=["channel", "created_at", "id"], name="notice_listed"),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["channel", "send_at"],
                        name="notice_pending_of_channel",
                    ),
                    models.Index(
                        condition=models.Q(("incident_id__isnull", False)),
                        fields=["incident_id", "created_at"],
                        name="notice_of_incident",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending"), _negated=True),
                        fields=["created_at"],
                        name="notice_prunable",
                    ),
                    models.Index(
                        condition=models.Q(("approval_id__isnull", False)),
                        fields=["approval_id", "created_at"],
                        name="notice_of_approval",
                    ),
                    models.Index(
                        condition=models.Q(("status", "digested"), _negated=True),
                        fields=["channel", "address", "tells_results", "send_at"],
                        name="notice_sent_to",
                    ),
                    models.Index(
                        condition=models.Q(
                            models.Q(("status", "digested"), _negated=True),
                            models.Q(("address", ""), _negated=True),
                        ),
                        fields=["address", "tells_results", "send_at"],
                        name="notice_mailed_to",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("next_attempt_at__isnull", False), ("status", "pending")),
                            models.Q(
                                ("next_attempt_at__isnull", True),
                                ("status__in", ("delivered", "dead", "digested")),
                            ),
                            _connector="OR",
                        ),
                        name="notice_pending_is_due",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("delivered_at__isnull", False), ("status", "delivered")),
                            models.Q(
                                ("delivered_at__isnull", True),
                                models.Q(("status", "delivered"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="notice_delivered_at",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("digest_id__isnull", False), ("status", "digested")),
                            models.Q(
                                models.Q(("status", "digested"), _negated=True),
                                ("digest_id__isnull", True),
                            ),
                            _connector="OR",
                        ),
                        name="notice_digested_has_a_digest",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("event", "channel.digest"),
                            ("next_attempt_at", models.F("send_at")),
                            ("status", "pending"),
                        ),
                        fields=("channel", "address", "environment", "tells_results"),
                        name="notice_one_open_digest",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="NoticeAttempt",
            fields=[
                ("n", models.PositiveSmallIntegerField()),
                ("at", models.DateTimeField()),
                ("status_code", models.PositiveSmallIntegerField(null=True)),
                ("duration_ms", models.PositiveIntegerField()),
                ("error", models.CharField(max_length=100, null=True)),
                ("response_body", models.CharField(max_length=1024, null=True)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "notice_id",
                        "n",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ENVIRONMENT,
                (
                    "notice",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.PROTECT,
                        related_name="attempts",
                        to="notices.notice",
                    ),
                ),
            ],
            options={
                "db_table": "notice_attempt",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status_code__isnull", False),
                            ("error__isnull", False),
                            _connector="OR",
                        ),
                        name="notice_attempt_has_an_end",
                    )
                ],
            },
        ),
        tenant_parent("channel", "channel"),
        tenant_parent("notice", "notice"),
        tenant_key("channel", "secret_key_id", "data_key"),
        tenant_key("channel", "url_key_id", "data_key"),
        tenant_key("notice", "channel_id", "channel"),
        tenant_key("notice_attempt", "notice_id", "notice"),
    ]
