"""Removes the unique indexes without the environment. Those of 0021 promise the same.

A scheduler of the code before names the old indexes, so it must be replaced in the same deployment: until then its
statements fail and are tried again, and nothing is lost. No release had the old indexes.
"""

from django.db import migrations, models
from django.db.models import Q

_NEW = {
    "run": (
        models.UniqueConstraint(
            fields=["worker", "slot", "environment"],
            condition=Q(slot__isnull=False),
            name="run_one_in_slot",
        ),
        models.UniqueConstraint(
            fields=["trigger", "scheduled_for", "environment"],
            condition=Q(source="schedule"),
            name="run_one_for_tick",
        ),
        models.UniqueConstraint(
            fields=["retry_of", "environment"],
            condition=Q(retry_of__isnull=False),
            name="run_one_retry",
        ),
    ),
    "tick": (
        models.UniqueConstraint(
            fields=["trigger", "tick_at", "environment"], name="tick_one_decision"
        ),
    ),
}
_OLD_INDEXES = {
    "run_slot_of_worker": "run (worker_id, slot) WHERE slot IS NOT NULL",
    "run_once_per_tick": "run (trigger_id, scheduled_for) WHERE source = 'schedule'",
    "run_retried_once": "run (retry_of_id) WHERE retry_of_id IS NOT NULL",
}


class _InTransaction(migrations.RunSQL):
    """SQL that has a transaction of its own, so that `pipedai.patience` limits how long it waits for its lock.

    It must be the last operation. If it can't get its lock, the whole migration is tried again, and only the operations
    before it can be carried out twice.
    """

    atomic = True


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0021_unique_in_environment")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
                    f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {columns}",
                )
                for name, columns in _OLD_INDEXES.items()
            ],
            state_operations=[
                *(
                    migrations.AddConstraint(model, constraint)
                    for model, constraints in _NEW.items()
                    for constraint in constraints
                ),
                migrations.RemoveConstraint("tick", "tick_decided_once"),
                *(migrations.RemoveConstraint("run", name) for name in _OLD_INDEXES),
            ],
        ),
        _InTransaction(
            "ALTER TABLE tick DROP CONSTRAINT tick_decided_once,"
            " ADD CONSTRAINT tick_one_decision UNIQUE USING INDEX tick_one_decision",
            "ALTER TABLE tick ADD CONSTRAINT tick_decided_once UNIQUE (trigger_id, tick_at),"
            # The constraint takes the index of 0021 with it.
            " DROP CONSTRAINT tick_one_decision;"
            " CREATE UNIQUE INDEX tick_one_decision ON tick (trigger_id, tick_at, environment_id)",
        ),
    ]
