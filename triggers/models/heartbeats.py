"""The tables of heartbeats, which show which processes of the service are alive."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.table_rules import index


class ProcessHeartbeat(models.Model):
    """A process that is alive, or that ended within the last hour. It writes the row by the database's clock."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The name of the machine on which the process runs, cut to 255 characters.
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    beat_at = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True


class SchedulerHeartbeat(ProcessHeartbeat):
    """A scheduler process, by which operators, metrics and `check_deploy` see that background work is done."""

    class Meta:
        db_table = "scheduler_heartbeat"
        indexes = (index("scheduler_heartbeat_old", ["beat_at"]),)


class WebHeartbeat(ProcessHeartbeat):
    """A web process, and since when workers could reach the service. The scheduler gives up a silent worker's run only
    if the worker could have renewed its lease (SPEC §22).
    """

    # Since when some web process has reached the database without a gap: see `triggers.runs.reachability`.
    reachable_since = models.DateTimeField()

    class Meta:
        db_table = "web_heartbeat"
        indexes = (index("web_heartbeat_old", ["beat_at"]),)
