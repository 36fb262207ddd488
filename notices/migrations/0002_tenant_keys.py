"""Adds the keys by which a row can refer only to rows of its own environment."""

from django.db import migrations

from pipedai.table_rules import tenant_key


class Migration(migrations.Migration):
    dependencies = [("notices", "0001_initial")]

    operations = [
        tenant_key("channel", "secret_key_id", "data_key"),
        tenant_key("channel", "url_key_id", "data_key"),
        tenant_key("notice", "channel_id", "channel"),
        tenant_key("notice_attempt", "notice_id", "notice"),
    ]
