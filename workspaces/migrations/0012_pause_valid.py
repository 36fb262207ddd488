"""Validates the constraints of 0011. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0011_pause")]

    operations = [
        ValidateConstraint(model_name="apikey", name="api_key_only_wrk_joins_pools"),
        ValidateConstraint(model_name="environment", name="environment_pause_has_a_time"),
    ]
