"""The tables of what is alive: processes of the service, and the streams of environments."""

from django.db import models
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.table_rules import index
from workspaces.models import Environment


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
    """A scheduler process. By it operators, metrics and `check_deploy` see that background work is done."""

    class Meta:
        db_table = "scheduler_heartbeat"
        indexes = (index("scheduler_heartbeat_old", ["beat_at"]),)


class WebHeartbeat(ProcessHeartbeat):
    """A web process, and since when workers could reach the service. The scheduler gives up the run of a silent worker
    only if the worker could have renewed its lease.
    """

    # Since when, without a gap, at least one web process has reached the database: see `triggers.heartbeats`.
    reachable_since = models.DateTimeField()

    class Meta:
        db_table = "web_heartbeat"
        indexes = (index("web_heartbeat_old", ["beat_at"]),)


class EnvironmentWatch(models.Model):
    """Says that somebody streams an environment's changes. Without a row, its changes send no notification."""

    # The environment whose changes are streamed.
    environment = models.OneToOneField(Environment, primary_key=True, on_delete=models.CASCADE)
    # Until when streams are notified, by the database's clock. Each open stream moves it on.
    watched_until = models.DateTimeField()

    class Meta:
        db_table = "environment_watch"
