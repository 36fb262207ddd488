"""Adds the indexes by which workspaces take turns: they find each environment with due work without reading it all
(SPEC §19).

`trigger_due_in_environment` replaces `trigger_due` in all queries.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0012_handed_to")]

    operations = [
        AddIndexConcurrently(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(("next_run_at__isnull", False)),
                fields=["next_run_at", "environment", "id"],
                name="trigger_due_in_environment",
            ),
        ),
        AddIndexConcurrently(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status", "pending")),
                fields=["environment", "host", "next_attempt_at"],
                name="delivery_pending_by_host",
            ),
        ),
        RemoveIndexConcurrently(model_name="trigger", name="trigger_due"),
    ]
