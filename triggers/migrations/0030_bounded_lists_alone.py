"""Removes the indexes that those of 0029 replace.

The lists of the release before still work without them. Until it is gone, they are slower in a large ledger if they are
filtered by state or decision.
"""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0029_bounded_lists")]

    operations = [
        RemoveIndexConcurrently(model_name="run", name="run_of_status"),
        RemoveIndexConcurrently(model_name="run", name="run_of_trigger_and_status"),
        RemoveIndexConcurrently(model_name="run", name="run_of_worker_and_status"),
        RemoveIndexConcurrently(model_name="tick", name="tick_of_decision"),
    ]
