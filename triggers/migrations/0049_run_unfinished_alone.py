"""Removes the index that the one of 0048 replaces."""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0048_run_unfinished_of_trigger")]

    operations = [
        RemoveIndexConcurrently(model_name="run", name="run_unfinished"),
    ]
