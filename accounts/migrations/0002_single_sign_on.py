"""Makes the table of accounts at the issuer, and the columns of sessions and users that came with it."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Identity",
            fields=[
                ("issuer", models.CharField(max_length=2048)),
                ("sub", models.CharField(max_length=255)),
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="identity",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "db_table": "identity",
                "constraints": [
                    models.UniqueConstraint(fields=("issuer", "sub"), name="identity_once")
                ],
            },
        ),
        migrations.AddField(
            model_name="session",
            name="began",
            field=models.CharField(
                choices=[("password", "Password"), ("sso", "Sso")],
                db_default="password",
                default="password",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="password_allowed",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="user",
            name="timezone",
            field=models.CharField(max_length=64, null=True),
        ),
        migrations.AlterField(
            model_name="accountmail",
            name="purpose",
            field=models.CharField(
                choices=[
                    ("verify", "Verify"),
                    ("change", "Change"),
                    ("change_notice", "Change Notice"),
                    ("reset", "Reset"),
                    ("registration", "Registration"),
                    ("invitation", "Invitation"),
                    ("link", "Link"),
                    ("link_notice", "Link Notice"),
                ],
                max_length=16,
            ),
        ),
    ]
