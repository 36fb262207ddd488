"""Adds the indexes by which old windows of budgets are found and removed."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0037_budgets_valid")]

    operations = [
        AddIndexConcurrently(
            model_name="budgetwindow",
            index=models.Index(fields=["ends_at"], name="budget_window_ended"),
        ),
        AddIndexConcurrently(
            model_name="runreservation",
            index=models.Index(fields=["window"], name="run_reservation_of_window"),
        ),
    ]
