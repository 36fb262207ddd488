"""Validates the constraints of 0027. Rows can be read and written meanwhile."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("triggers", "0027_health")]

    operations = [
        ValidateConstraint(model_name="trigger", name="trigger_alert_after_failures"),
        ValidateConstraint(model_name="trigger", name="trigger_success_deadline_seconds"),
    ]
