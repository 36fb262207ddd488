"""Removes the index that the one of 0045 replaces.

The lists of the release before still work without it. Until it is gone, those of a trigger and a worker together may
read all runs of one of the two.
"""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0045_run_of_pair")]

    operations = [
        RemoveIndexConcurrently(model_name="run", name="run_of_trigger_and_worker"),
    ]
