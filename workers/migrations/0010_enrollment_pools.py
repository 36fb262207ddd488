"""Lets an enrollment code name the pools that the host's worker joins (SPEC §16)."""

import django.contrib.postgres.fields
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workers", "0009_silences")]

    operations = [
        migrations.AddField(
            model_name="enrollment",
            name="pool_ids",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.UUIDField(), null=True, size=None
            ),
        ),
        AddConstraintNotValid(
            model_name="enrollment",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "code"), ("pool_ids__isnull", True), _connector="OR"),
                name="enrollment_only_code_joins_pools",
            ),
        ),
    ]
