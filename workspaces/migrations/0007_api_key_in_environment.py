"""Adds an index that the next migration turns into a constraint, and one that finds the tokens that a key minted."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("workspaces", "0006_host_keys")]

    operations = [
        migrations.RunSQL(
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS api_key_in_environment ON api_key (environment_id, id)",
            "DROP INDEX CONCURRENTLY IF EXISTS api_key_in_environment",
        ),
        AddIndexConcurrently(
            model_name="apikey",
            index=models.Index(
                condition=models.Q(("parent__isnull", False)),
                fields=["parent"],
                name="api_key_minted",
            ),
        ),
    ]
