"""Adds the tables of channels, of their notices, and of the addresses that get mail (SPEC §14)."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import pipedai.ids


class Migration(migrations.Migration):
    dependencies = [
        ("notices", "0001_incidents"),
        ("workspaces", "0009_host_keys_valid"),
    ]

    operations = [
        migrations.CreateModel(
            name="RefusedAddress",
            fields=[
                ("address", models.CharField(max_length=254, primary_key=True, serialize=False)),
                (
                    "refused_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "refused_address",
            },
        ),
        migrations.CreateModel(
            name="Channel",
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
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=254), default=list, size=None
                    ),
                ),
                ("url", models.BinaryField(null=True)),
                ("host", models.CharField(db_default="", default="", max_length=255)),
                ("secret", models.BinaryField(null=True)),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=30), size=None
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("created_by", models.UUIDField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("deleted_at", models.DateTimeField(null=True)),
                ("failing_since", models.DateTimeField(null=True)),
                ("last_error", models.CharField(max_length=100, null=True)),
                ("dropped_count", models.PositiveIntegerField(db_default=0, default=0)),
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
                    "secret_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
                (
                    "url_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="workspaces.datakey",
                    ),
                ),
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
                            ("events__contains", ["run.ended"]),
                        ),
                        fields=["environment"],
                        name="channel_of_outcomes",
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
                ],
            },
        ),
        migrations.CreateModel(
            name="Notice",
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
                ("host", models.CharField(max_length=255)),
                (
                    "next_attempt_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), null=True
                    ),
                ),
                ("attempt_count", models.PositiveSmallIntegerField(db_default=0, default=0)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
                ("event", models.CharField(max_length=30)),
                ("incident_id", models.UUIDField(null=True)),
                ("run_id", models.UUIDField(null=True)),
                ("address", models.CharField(db_default="", default="", max_length=254)),
                ("body", models.TextField()),
                (
                    "send_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("digest_id", models.UUIDField(null=True)),
                (
                    "channel",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="notices",
                        to="notices.channel",
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
                        condition=models.Q(("status", "digested"), _negated=True),
                        fields=["channel", "address", "send_at"],
                        name="notice_sent_to",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["channel", "send_at"],
                        name="notice_pending_of_channel",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending"), _negated=True),
                        fields=["created_at"],
                        name="notice_prunable",
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
                        fields=("channel", "address", "environment"),
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
                    "notice",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
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
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AskedAddress",
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
                ("address", models.CharField(max_length=254)),
                ("asked_by", models.UUIDField()),
                (
                    "asked_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("confirmed_at", models.DateTimeField(null=True)),
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
        migrations.AddConstraint(
            model_name="channel",
            constraint=models.UniqueConstraint(
                fields=("environment", "id"), name="channel_in_environment"
            ),
        ),
        migrations.AddConstraint(
            model_name="notice",
            constraint=models.UniqueConstraint(
                fields=("environment", "id"), name="notice_in_environment"
            ),
        ),
        migrations.RunSQL(
            "ALTER TABLE channel ADD CONSTRAINT channel_url_key_in_environment "
            "FOREIGN KEY (environment_id, url_key_id) REFERENCES data_key (environment_id, id)",
            "ALTER TABLE channel DROP CONSTRAINT channel_url_key_in_environment",
        ),
        migrations.RunSQL(
            "ALTER TABLE channel ADD CONSTRAINT channel_secret_key_in_environment "
            "FOREIGN KEY (environment_id, secret_key_id) REFERENCES data_key (environment_id, id)",
            "ALTER TABLE channel DROP CONSTRAINT channel_secret_key_in_environment",
        ),
        migrations.RunSQL(
            "ALTER TABLE notice ADD CONSTRAINT notice_channel_in_environment "
            "FOREIGN KEY (environment_id, channel_id) REFERENCES channel (environment_id, id)",
            "ALTER TABLE notice DROP CONSTRAINT notice_channel_in_environment",
        ),
        migrations.RunSQL(
            "ALTER TABLE notice_attempt ADD CONSTRAINT notice_attempt_notice_in_environment "
            "FOREIGN KEY (environment_id, notice_id) REFERENCES notice (environment_id, id)",
            "ALTER TABLE notice_attempt DROP CONSTRAINT notice_attempt_notice_in_environment",
        ),
    ]
