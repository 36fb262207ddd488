"""Workers that a key's token registered wait for an admin's approval; those that are there already are approved."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0004_host_keys_valid")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="unapproved_since",
            field=models.DateTimeField(null=True),
        ),
    ]
