"""Validates the constraint of 0014. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0014_stretches")]

    operations = [ValidateConstraint(model_name="tick", name="tick_missed_is_counted")]
