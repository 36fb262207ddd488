"""Validates the constraint of 0036. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0036_budgets")]

    operations = [
        ValidateConstraint(model_name="trigger", name="trigger_max_cost_usd"),
    ]
