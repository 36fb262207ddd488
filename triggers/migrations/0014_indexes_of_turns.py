from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("triggers", "0013_run_that_looked_last"),)

    operations = (
        AddIndexConcurrently(
            "approval",
            Index(
                condition=Q(("remind_at__isnull", False), ("status", "pending")),
                fields=["environment", "remind_at"],
                name="approval_remind_next",
            ),
        ),
        RemoveIndexConcurrently("approval", "approval_remind"),
        AddIndexConcurrently(
            "budgetwindow",
            Index(
                condition=Q(("is_changed", True)),
                fields=["environment", "id"],
                name="budget_window_to_look_at",
            ),
        ),
        RemoveIndexConcurrently("budgetwindow", "budget_window_changed"),
        AddIndexConcurrently(
            "budgetwindow",
            Index(
                condition=Q(("noticed_pct__gt", 0)),
                fields=["environment", "ends_at"],
                name="budget_window_told",
            ),
        ),
        RemoveIndexConcurrently("budgetwindow", "budget_window_noticed"),
        AddIndexConcurrently(
            "triggerhealth",
            Index(
                condition=Q(("check_at__isnull", False)),
                fields=["environment", "check_at"],
                name="trigger_health_next",
            ),
        ),
        RemoveIndexConcurrently("triggerhealth", "trigger_health_due"),
        AddIndexConcurrently(
            "event",
            Index(
                condition=Q(("decided_at__isnull", False)),
                fields=["received_at", "id"],
                name="event_prunable",
            ),
        ),
        RemoveIndexConcurrently("event", "event_old"),
    )
