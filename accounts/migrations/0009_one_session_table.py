"""Keeps the sessions of Django admin in the table of all sessions."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0008_account_mail_by_host")]

    operations = [
        migrations.AddField(
            "session", "key_digest", models.BinaryField(max_length=32, unique=True, null=True)
        ),
        migrations.AddField("session", "data", models.JSONField(null=True)),
        migrations.AlterField("session", "address_digest", models.BinaryField(max_length=32)),
        migrations.AlterModelOptions("session", {}),
        migrations.AddConstraint(
            "session",
            models.CheckConstraint(
                condition=models.Q(key_digest__isnull=True, data__isnull=True)
                | models.Q(key_digest__isnull=False, data__isnull=False),
                name="session_of_admin_has_key_and_data",
            ),
        ),
        migrations.DeleteModel("StaffSession"),
    ]
