"""Lets an admin pause an environment, and lets a `wrk_` key name the pools that its worker joins (SPEC §16)."""

import django.contrib.postgres.fields
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0010_invitations")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="pool_ids",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.UUIDField(), null=True, size=None
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="pause_reason",
            field=models.CharField(max_length=500, null=True),
        ),
        migrations.AddField(
            model_name="environment",
            name="paused_at",
            field=models.DateTimeField(null=True),
        ),
        AddConstraintNotValid(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "wrk"), ("pool_ids__isnull", True), _connector="OR"),
                name="api_key_only_wrk_joins_pools",
            ),
        ),
        AddConstraintNotValid(
            model_name="environment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("pause_reason__isnull", True), ("paused_at__isnull", False), _connector="OR"
                ),
                name="environment_pause_has_a_time",
            ),
        ),
    ]
