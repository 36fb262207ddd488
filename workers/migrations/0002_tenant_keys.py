"""Adds the keys by which a row can refer only to rows of its own environment."""

from django.db import migrations

from pipedai.table_rules import tenant_key


class Migration(migrations.Migration):
    dependencies = [("workers", "0001_initial")]

    operations = [
        tenant_key("enrollment", "worker_id", "worker"),
        tenant_key("pool_member", "pool_id", "pool"),
        tenant_key("pool_member", "worker_id", "worker"),
        tenant_key("worker", "host_key_id", "api_key"),
        tenant_key("worker_event", "worker_id", "worker"),
        tenant_key("worker_silence", "worker_id", "worker"),
    ]
