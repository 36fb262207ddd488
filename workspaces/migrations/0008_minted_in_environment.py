"""Adds a composite foreign key, so that a key mints only in its own environment. 0009 validates it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0007_api_key_in_environment")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE api_key ADD CONSTRAINT api_key_in_environment UNIQUE USING INDEX api_key_in_environment",
                    "ALTER TABLE api_key DROP CONSTRAINT api_key_in_environment",
                )
            ],
            state_operations=[
                migrations.AddConstraint(
                    model_name="apikey",
                    constraint=models.UniqueConstraint(
                        fields=["environment", "id"], name="api_key_in_environment"
                    ),
                )
            ],
        ),
        migrations.RunSQL(
            "ALTER TABLE api_key ADD CONSTRAINT api_key_parent_in_environment"
            " FOREIGN KEY (environment_id, parent_id) REFERENCES api_key (environment_id, id) NOT VALID",
            "ALTER TABLE api_key DROP CONSTRAINT api_key_parent_in_environment",
        ),
    ]
