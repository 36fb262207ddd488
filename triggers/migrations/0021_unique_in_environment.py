"""Builds unique indexes that contain the environment, beside those without it, which 0022 removes (SPEC §22)."""

from django.db import migrations

_INDEXES = {
    "run_one_in_slot": "run (worker_id, slot, environment_id) WHERE slot IS NOT NULL",
    "run_one_for_tick": "run (trigger_id, scheduled_for, environment_id) WHERE source = 'schedule'",
    "run_one_retry": "run (retry_of_id, environment_id) WHERE retry_of_id IS NOT NULL",
    "tick_one_decision": "tick (trigger_id, tick_at, environment_id)",
}


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("triggers", "0020_autovacuum")]

    operations = [
        migrations.RunSQL(
            f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {columns}",
            f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
        )
        for name, columns in _INDEXES.items()
    ]
