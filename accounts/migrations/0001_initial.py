"""Makes the tables of accounts, sessions and their mails."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models

import pipedai.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="User",
            fields=[
                ("password", models.CharField(max_length=128, verbose_name="password")),
                (
                    "id",
                    models.UUIDField(
                        default=pipedai.ids.new_id,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("email", models.CharField(max_length=254, unique=True)),
                ("email_verified_at", models.DateTimeField(null=True)),
                ("must_prove_email", models.BooleanField(db_default=False, default=False)),
                ("name", models.CharField(blank=True, max_length=200)),
                ("is_active", models.BooleanField(default=True)),
                ("is_staff", models.BooleanField(default=False)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "user_account",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("email", django.db.models.functions.text.Lower("email"))
                        ),
                        name="user_account_email_is_lower_case",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AccountMail",
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
                            ("handed", "Handed"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                (
                    "purpose",
                    models.CharField(
                        choices=[
                            ("verify", "Verify"),
                            ("change", "Change"),
                            ("change_notice", "Change Notice"),
                            ("reset", "Reset"),
                            ("registration", "Registration"),
                            ("invitation", "Invitation"),
                        ],
                        max_length=16,
                    ),
                ),
                ("address", models.CharField(max_length=254)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("facts", models.JSONField(default=dict)),
                ("token_digest", models.BinaryField(max_length=32, null=True, unique=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "account mail",
                "db_table": "account_mail",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["next_attempt_at", "host"],
                        name="accountmail_due_by_host",
                    ),
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["host", "next_attempt_at"],
                        name="accountmail_pending_by_host",
                    ),
                    models.Index(fields=["user", "created_at"], name="account_mail_of_user"),
                    models.Index(fields=["created_at"], name="account_mail_old"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("next_attempt_at__isnull", False), ("status", "pending")),
                            models.Q(
                                ("next_attempt_at__isnull", True),
                                ("status__in", ("delivered", "dead", "handed")),
                            ),
                            _connector="OR",
                        ),
                        name="accountmail_pending_is_due",
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
                        name="accountmail_delivered_at",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("expires_at__isnull", True), ("token_digest__isnull", True)),
                            models.Q(
                                ("expires_at__isnull", False), ("token_digest__isnull", False)
                            ),
                            _connector="OR",
                        ),
                        name="account_mail_token_expires",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AccountMailAttempt",
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
                        "mail_id",
                        "n",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "mail",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="accounts.accountmail",
                    ),
                ),
            ],
            options={
                "db_table": "account_mail_attempt",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status_code__isnull", False),
                            ("error__isnull", False),
                            _connector="OR",
                        ),
                        name="account_mail_attempt_ended_somehow",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Session",
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
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="sessions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("expires_at", models.DateTimeField()),
                ("address_digest", models.BinaryField(max_length=32)),
                ("address", models.GenericIPAddressField(null=True)),
                (
                    "user_agent",
                    models.CharField(blank=True, db_default="", default="", max_length=255),
                ),
                ("last_used_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("key_digest", models.BinaryField(max_length=32, null=True, unique=True)),
                ("data", models.JSONField(null=True)),
            ],
            options={
                "db_table": "session",
                "indexes": [
                    models.Index(
                        condition=models.Q(("revoked_at__isnull", True)),
                        fields=["user"],
                        name="session_live_of_user",
                    ),
                    models.Index(fields=["expires_at"], name="session_expired"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("data__isnull", True), ("key_digest__isnull", True)),
                            models.Q(("data__isnull", False), ("key_digest__isnull", False)),
                            _connector="OR",
                        ),
                        name="session_of_admin_has_key_and_data",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Authenticator",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="authenticator",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("secret", models.BinaryField()),
                ("master_key_id", models.CharField(max_length=64)),
                ("last_step", models.BigIntegerField(default=0)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("confirmed_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "authenticator",
            },
        ),
        migrations.CreateModel(
            name="RecoveryCode",
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
                    "authenticator",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="recovery_codes",
                        to="accounts.authenticator",
                    ),
                ),
                ("code_digest", models.BinaryField(max_length=32)),
                ("used_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "recovery_code",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("authenticator", "code_digest"), name="recovery_code_once"
                    )
                ],
            },
        ),
    ]
