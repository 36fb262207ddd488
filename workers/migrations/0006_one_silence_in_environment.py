"""Replaces the unique index of silence events by one that contains the environment (SPEC §22)."""

from django.db import migrations, models
from django.db.models import Q

_EVENTS = "type IN ('poll.error', 'worker.stopped')"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("workers", "0005_unapproved_since")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS worker_event_one_silence"
                    f" ON worker_event (worker_id, type, at, environment_id) WHERE {_EVENTS}",
                    "DROP INDEX CONCURRENTLY IF EXISTS worker_event_one_silence",
                ),
                migrations.RunSQL(
                    "DROP INDEX CONCURRENTLY IF EXISTS worker_event_silence_told_once",
                    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS worker_event_silence_told_once"
                    f" ON worker_event (worker_id, type, at) WHERE {_EVENTS}",
                ),
            ],
            state_operations=[
                migrations.AddConstraint(
                    "workerevent",
                    models.UniqueConstraint(
                        fields=["worker", "type", "at", "environment"],
                        condition=Q(type__in=("poll.error", "worker.stopped")),
                        name="worker_event_one_silence",
                    ),
                ),
                migrations.RemoveConstraint("workerevent", "worker_event_silence_told_once"),
            ],
        ),
    ]
