"""What was decided about the due times of schedules, and who decides: the living schedulers."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import tenant_key
from triggers.states import Decision
from workspaces.models import Environment


class Tick(models.Model):
    """A due time of a trigger's schedule and what was decided about it.

    One row stands for a whole gap of missed ticks, and for a whole stretch of ticks without a worker.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="ticks")
    # The due time; of several that the row stands for, the first.
    tick_at = models.DateTimeField()
    # The last due time that the row stands for; it moves on while a stretch without a worker lasts.
    last_tick_at = models.DateTimeField()
    decision = models.CharField(max_length=17, choices=Decision.choices)
    run = tenant_key("triggers.Run", null=True, related_name="+")
    # How many due times the row stands for, if it was `skipped_missed` or `skipped_no_worker`; else 0.
    missed_count = models.PositiveIntegerField(default=0)
    decided_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "tick"
        constraints = (
            models.UniqueConstraint(fields=["trigger", "tick_at"], name="tick_decided_once"),
            models.CheckConstraint(
                condition=Q(decision=Decision.FIRED, run__isnull=False)
                | (Q(run__isnull=True) & ~Q(decision=Decision.FIRED)),
                name="tick_fired_has_a_run",
            ),
            models.CheckConstraint(
                condition=Q(
                    decision__in=(Decision.SKIPPED_MISSED, Decision.SKIPPED_NO_WORKER),
                    missed_count__gte=1,
                    last_tick_at__gte=models.F("tick_at"),
                )
                # An older row of a tick without a worker counts 0.
                | (
                    Q(missed_count=0, last_tick_at=models.F("tick_at"))
                    & ~Q(decision=Decision.SKIPPED_MISSED)
                ),
                name="tick_missed_is_counted",
            ),
            models.CheckConstraint(condition=Q(decision__in=Decision.values), name="tick_decision"),
        )
        indexes = (
            models.Index(fields=["run"], name="tick_of_run", condition=Q(run__isnull=False)),
        )


class SchedulerHeartbeat(models.Model):
    """A living scheduler process: what operators read to know that the background is at work."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    beat_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "scheduler_heartbeat"
        indexes = (models.Index(fields=["beat_at"], name="scheduler_heartbeat_old"),)
