"""Validates the constraint of 0016. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0017_run_results")]

    operations = [ValidateConstraint(model_name="run", name="run_tool_calls")]
