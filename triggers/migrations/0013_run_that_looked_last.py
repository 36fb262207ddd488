from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations
from django.db.models import Index, Q


class Migration(migrations.Migration):
    atomic = False
    dependencies = (("triggers", "0012_no_reservations_left_over"),)

    operations = (
        AddIndexConcurrently(
            "run",
            Index(
                condition=Q(
                    ("ended_at__isnull", False),
                    ("look_digest__isnull", False),
                    ("status", "succeeded"),
                ),
                fields=["revision", "looked_at", "id"],
                name="run_that_looked_last",
            ),
        ),
        RemoveIndexConcurrently("run", "run_that_looked"),
    )
