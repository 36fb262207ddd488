"""Validates the constraint of 0010. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("workers", "0010_enrollment_pools")]

    operations = [
        ValidateConstraint(model_name="enrollment", name="enrollment_only_code_joins_pools"),
    ]
