"""Adds the keys by which a row can refer only to rows of its own environment."""

from django.db import migrations

from pipedai.table_rules import tenant_key


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0001_initial")]

    operations = [
        tenant_key("api_key", "parent_id", "api_key"),
    ]
