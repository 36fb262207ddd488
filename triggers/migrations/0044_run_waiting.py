"""Removes the index of an environment's queued runs. Another index counts them as well, and no index but `run_polled`
remains that a poll could take by mistake: by this one, it read the queues of all other workers.
"""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0043_runs_of_pool_and_more")]

    operations = [
        RemoveIndexConcurrently(model_name="run", name="run_waiting"),
    ]
