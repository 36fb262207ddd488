"""Adds what the issuer told last to links, and to admin sessions the session that they came from."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_known_address_index")]

    operations = [
        migrations.AddField(
            model_name="identity",
            name="address",
            field=models.CharField(max_length=254, null=True),
        ),
        migrations.AddField(
            model_name="identity",
            name="last_used_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="session",
            name="came_from",
            field=models.UUIDField(null=True),
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
                    ("follow_notice", "Follow Notice"),
                    ("unlink_notice", "Unlink Notice"),
                ],
                max_length=16,
            ),
        ),
    ]
