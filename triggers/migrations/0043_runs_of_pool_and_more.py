"""Adds the indexes by which the runs of a pool and of a trigger or worker are listed, and replaces the index of a pool's
runs by one of its ended runs, which a claim and a start do not write.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


def _ended_runs(*scope: str, name: str, by_kind: bool = True) -> AddIndexConcurrently:
    kind = ["source", "status", "fault_class"] if by_kind else []
    return AddIndexConcurrently(
        model_name="run",
        index=models.Index(
            condition=models.Q(("ended_at__isnull", False), ("pool__isnull", False)),
            fields=[*scope, *kind, "queued_at", "id"],
            name=name,
        ),
    )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0042_limited_triggers")]

    operations = [
        _ended_runs("pool", name="run_ended_of_pool", by_kind=False),
        _ended_runs("pool", "trigger", name="run_of_pool_and_trigger"),
        _ended_runs("pool", "worker", name="run_of_pool_and_worker"),
        RemoveIndexConcurrently(model_name="run", name="run_of_pool"),
    ]
