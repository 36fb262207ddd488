"""Validates the constraints that 0006 and 0008 added, not valid."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0008_minted_in_environment")]

    operations = [
        ValidateConstraint(model_name="apikey", name="api_key_only_wrk_is_minted"),
        ValidateConstraint(model_name="apikey", name="api_key_role_of_kind"),
        migrations.RunSQL(
            "ALTER TABLE api_key VALIDATE CONSTRAINT api_key_parent_in_environment",
            migrations.RunSQL.noop,
        ),
    ]
