from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("triggers", "0006_looks"),)

    operations = (
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(
                    ("ended_at__isnull", False), ("nothing_new", False), ("status", "succeeded")
                ),
                fields=["trigger", "ended_at", "id"],
                name="run_with_something_new",
            ),
        ),
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(
                    ("ended_at__isnull", False),
                    ("look_digest__isnull", False),
                    ("status", "succeeded"),
                ),
                fields=["revision", "ended_at", "id"],
                name="run_that_looked",
            ),
        ),
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(("nothing_new", True)),
                fields=["environment", "queued_at", "id"],
                name="run_nothing_new",
            ),
        ),
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(("nothing_new", True)),
                fields=["trigger", "queued_at", "id"],
                name="run_nothing_new_of_trigger",
            ),
        ),
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(("ended_at__isnull", False)),
                fields=["environment", "ended_at"],
                include=(
                    "status",
                    "source",
                    "trigger",
                    "worker",
                    "model",
                    "started_at",
                    "active_ms",
                    "cost_usd",
                    "input_tokens",
                    "output_tokens",
                    "nothing_new",
                ),
                name="run_ended_figures",
            ),
        ),
        RemoveIndexConcurrently("run", "run_ended"),
    )
