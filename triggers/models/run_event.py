"""The tables of run events: what a run's CLI told, as its worker sent it (SPEC §18)."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from pipedai.table_rules import check
from triggers.models.run import Run
from workspaces.tenant_columns import environment_key

# A run keeps at most so many events. After the last of them comes one event more, of the type `truncated`.
MAX_RUN_EVENTS = 20_000


class RunEventLog(models.Model):
    """How far a run's events have come. Calls that store events lock it. It begins with a first event or stream."""

    run = models.OneToOneField(
        Run, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="events"
    )
    environment = environment_key()
    # The number (`seq`) that the next event of the worker must have. The first event has the number 1.
    next_seq = models.BigIntegerField(default=1, db_default=1)
    # How many events are stored. They have the numbers from 1 to this one. If the row is truncated, the last of them
    # says so.
    stored = models.PositiveIntegerField(default=0, db_default=0)
    # How many bytes the stored events have, as JSON in UTF-8.
    bytes = models.PositiveIntegerField(default=0, db_default=0)
    # Whether a limit was reached. Further events are then counted in `next_seq` and not stored.
    is_truncated = models.BooleanField(default=False, db_default=False)
    # When the first and the latest events were stored, by the database's clock; NULL before. Reading searches only the
    # partitions of these days.
    first_at = models.DateTimeField(null=True)
    last_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "run_event_log"
        constraints = (
            check(
                "run_event_log_counts", Q(stored__lt=F("next_seq"), stored__lte=MAX_RUN_EVENTS + 1)
            ),
        )


class RunEventBatch(models.Model):
    """The events of a run that one call stored. The table is partitioned by the day (UTC) of `stored_at`, so its real
    primary key is `(run_id, last_seq, stored_at)`. It has no foreign keys, because each would cost a check at every
    insert.
    """

    pk = models.CompositePrimaryKey("run_id", "last_seq", "stored_at")
    environment_id = models.UUIDField()
    run_id = models.UUIDField()
    # The numbers of the first and the last event. The events between them have the numbers between.
    first_seq = models.IntegerField()
    last_seq = models.IntegerField()
    stored_at = models.DateTimeField()
    # How many bytes the events have, as JSON in UTF-8.
    bytes = models.IntegerField()
    # The events by number, each as the JSON text in which the API answers it.
    events = ArrayField(models.TextField())

    class Meta:
        db_table = "run_event_batch"
        managed = False


class RunEventDay(models.Model):
    """How many bytes of run events an environment has stored on one day."""

    pk = models.CompositePrimaryKey("environment_id", "day")
    # The environment whose runs the events belong to.
    environment = environment_key()
    # The day (UTC) on which the events were stored, by the database's clock.
    day = models.DateField()
    # How many bytes the events have, as JSON in UTF-8.
    bytes = models.BigIntegerField()

    class Meta:
        db_table = "run_event_day"
