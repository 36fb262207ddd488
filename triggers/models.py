"""Triggers, runs and deliveries. The database itself refuses a wrong state: see the constraints.

Foreign keys between tenant tables are composite, `(environment_id, id)`: the migrations add them,
since Django knows only single-column ones; hence `db_constraint=False`.
"""

from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.states import HELD, TERMINAL, Decision, EndedBy, FaultClass, Source, Status
from workspaces.models import Environment

MAX_RETRIES = 10
MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS = 10, 86_400


class JSONAsGivenField(models.JSONField):
    """A `json` column: keeps the text as it came (`jsonb` would reorder keys and rewrite numbers)."""

    def db_type(self, connection: Any) -> str:
        """The column's type."""
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """The value: psycopg has parsed it."""
        return value


def tenant_key(to: str, **kwargs: Any) -> Any:
    """A reference to a row of the same environment; its constraint is composite and made by a migration."""
    return models.ForeignKey(
        to, on_delete=models.PROTECT, db_constraint=False, db_index=False, **kwargs
    )


class Trigger(models.Model):
    """What to run, on which worker, when. Secrets lie here only sealed (SPEC §8)."""

    class OverlapPolicy(models.TextChoices):
        """What a tick does while a run of the trigger is unfinished."""

        QUEUE = "queue"
        SKIP = "skip"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    worker = tenant_key("workers.Worker", null=True, related_name="+")
    revision = tenant_key("triggers.TriggerRevision", related_name="+")
    name = models.CharField(max_length=200)
    description = models.CharField(max_length=2000, blank=True)
    mcp_url = models.CharField(max_length=2048)
    mcp_headers = models.BinaryField(null=True)
    mcp_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    webhook_url = models.CharField(max_length=2048, null=True)
    webhook_secret = models.BinaryField(null=True)
    webhook_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    schedule = models.CharField(max_length=200, null=True)
    timezone = models.CharField(max_length=64, default="UTC")
    next_run_at = models.DateTimeField(null=True)
    enabled = models.BooleanField(default=True)
    max_retries = models.PositiveSmallIntegerField(default=3)
    timeout_seconds = models.PositiveIntegerField(default=1800)
    overlap_policy = models.CharField(
        max_length=5, choices=OverlapPolicy.choices, default=OverlapPolicy.QUEUE
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trigger"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="trigger_in_environment"),
            models.CheckConstraint(
                condition=Q(mcp_headers__isnull=True, mcp_key__isnull=True)
                | Q(mcp_headers__isnull=False, mcp_key__isnull=False),
                name="trigger_mcp_headers_have_a_key",
            ),
            models.CheckConstraint(
                condition=Q(webhook_secret__isnull=True, webhook_key__isnull=True)
                | Q(webhook_secret__isnull=False, webhook_key__isnull=False),
                name="trigger_webhook_secret_has_a_key",
            ),
            models.CheckConstraint(
                condition=Q(
                    next_run_at__isnull=False,
                    enabled=True,
                    schedule__isnull=False,
                    deleted_at__isnull=True,
                )
                | (
                    Q(next_run_at__isnull=True)
                    & (Q(enabled=False) | Q(schedule__isnull=True) | Q(deleted_at__isnull=False))
                ),
                name="trigger_next_run_at_is_true",
            ),
            models.CheckConstraint(
                condition=Q(max_retries__lte=MAX_RETRIES), name="trigger_max_retries"
            ),
            models.CheckConstraint(
                condition=Q(
                    timeout_seconds__gte=MIN_TIMEOUT_SECONDS,
                    timeout_seconds__lte=MAX_TIMEOUT_SECONDS,
                ),
                name="trigger_timeout_seconds",
            ),
            models.CheckConstraint(
                condition=Q(overlap_policy__in=("queue", "skip")), name="trigger_overlap_policy"
            ),
        )
        indexes = (
            models.Index(
                fields=["next_run_at", "id"],
                name="trigger_due",
                condition=Q(next_run_at__isnull=False),
            ),
            models.Index(
                fields=["environment", "created_at", "id"],
                name="trigger_listed",
                condition=Q(deleted_at__isnull=True),
            ),
            models.Index(
                fields=["worker", "created_at", "id"],
                name="trigger_of_worker",
                condition=Q(deleted_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return self.name


class TriggerRevision(models.Model):
    """A prompt and model that a trigger has or had. Immutable; runs point at it, so no prompt is
    copied into each run.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="revisions")
    prompt = models.TextField()
    model = models.CharField(max_length=200, null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "trigger_revision"
        constraints = (
            models.UniqueConstraint(
                fields=["environment", "id"], name="trigger_revision_in_environment"
            ),
        )


def _held() -> Q:
    """Claimed and running runs hold a slot, a lease and a deadline; no other run does."""
    held = Q(
        status__in=HELD,
        worker__isnull=False,
        slot__isnull=False,
        lease_expires_at__isnull=False,
        deadline_at__isnull=False,
    )
    not_held = Q(slot__isnull=True, lease_expires_at__isnull=True, deadline_at__isnull=True) & ~Q(
        status__in=HELD
    )
    return held | not_held


def _ended() -> Q:
    """An ended run says when, by whom, and whose fault it was; no other run does.

    That they are not NULL is said besides: a CHECK lets pass what is neither true nor false.
    """
    ended = Q(
        status__in=TERMINAL,
        ended_at__isnull=False,
        ended_by__isnull=False,
        ended_by__in=EndedBy.values,
        fault_class__isnull=False,
    ) & (
        Q(status__in=(Status.SUCCEEDED, Status.CANCELED), fault_class=FaultClass.NONE)
        | Q(
            status__in=(Status.FAILED, Status.TIMED_OUT),
            fault_class__in=(FaultClass.INFRA, FaultClass.CLIENT),
        )
    )
    unfinished = Q(ended_at__isnull=True, ended_by__isnull=True, fault_class__isnull=True) & ~Q(
        status__in=TERMINAL
    )
    return ended | unfinished


def _times_of_state() -> Q:
    """The time stamps that each state has behind it."""
    return (
        Q(status=Status.QUEUED, claimed_at__isnull=True, started_at__isnull=True)
        | Q(status=Status.CLAIMED, claimed_at__isnull=False, started_at__isnull=True)
        | Q(status=Status.RUNNING, claimed_at__isnull=False, started_at__isnull=False)
        | Q(
            status__in=(Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT),
            claimed_at__isnull=False,
        )
        | (
            Q(status=Status.CANCELED)
            & (Q(claimed_at__isnull=False) | Q(claimed_at__isnull=True, started_at__isnull=True))
        )
    )


class Run(models.Model):
    """One attempt at executing a trigger: a ledger row that is never deleted by a user.

    Only `triggers.lifecycle` writes its state. Long text lies in RunText, so that these rows stay narrow.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="runs")
    revision = tenant_key("triggers.TriggerRevision", related_name="+")
    worker = tenant_key("workers.Worker", null=True, related_name="+")
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    source = models.CharField(max_length=8, choices=Source.choices)
    attempt = models.PositiveSmallIntegerField(default=1)
    max_retries = models.PositiveSmallIntegerField()
    timeout_seconds = models.PositiveIntegerField()
    retry_of = tenant_key("self", null=True, related_name="+")
    scheduled_for = models.DateTimeField(null=True)
    available_at = models.DateTimeField(db_default=Now())
    queued_at = models.DateTimeField(db_default=Now(), editable=False)
    claimed_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=11, choices=EndedBy.choices, null=True)
    # Which of its worker's `maxConcurrency` places it holds: unique per worker, so capacity is a constraint.
    slot = models.PositiveSmallIntegerField(null=True)
    claim_id = models.CharField(max_length=64, null=True)
    lease_expires_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    fault_class = models.CharField(max_length=6, choices=FaultClass.choices, null=True)
    short_message = models.CharField(max_length=500, null=True)
    model = models.CharField(max_length=200, null=True)
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_creation_tokens = models.BigIntegerField(null=True)
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    num_turns = models.IntegerField(null=True)
    session_id = models.CharField(max_length=255, null=True)

    class Meta:
        db_table = "run"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="run_in_environment"),
            models.UniqueConstraint(
                fields=["worker", "slot"],
                condition=Q(slot__isnull=False),
                name="run_slot_of_worker",
            ),
            models.UniqueConstraint(
                fields=["trigger", "scheduled_for"],
                condition=Q(source=Source.SCHEDULE),
                name="run_once_per_tick",
            ),
            models.UniqueConstraint(
                fields=["retry_of"], condition=Q(retry_of__isnull=False), name="run_retried_once"
            ),
            models.CheckConstraint(condition=_held(), name="run_held"),
            models.CheckConstraint(condition=_ended(), name="run_ended"),
            models.CheckConstraint(condition=_times_of_state(), name="run_times_of_state"),
            models.CheckConstraint(
                condition=Q(started_at__isnull=True) | Q(claimed_at__isnull=False),
                name="run_started_was_claimed",
            ),
            models.CheckConstraint(
                condition=Q(source=Source.RETRY, retry_of__isnull=False, attempt__gt=1)
                | (Q(retry_of__isnull=True, attempt=1) & ~Q(source=Source.RETRY)),
                name="run_retry_has_an_original",
            ),
            models.CheckConstraint(
                condition=~Q(source=Source.SCHEDULE) | Q(scheduled_for__isnull=False),
                name="run_scheduled_has_a_tick",
            ),
            models.CheckConstraint(condition=Q(source__in=Source.values), name="run_source"),
            models.CheckConstraint(
                condition=Q(cost_usd__isnull=True) | Q(cost_usd__gte=0), name="run_cost"
            ),
        )
        indexes = (
            models.Index(
                fields=["worker", "available_at", "id"],
                name="run_polled",
                condition=Q(status=Status.QUEUED),
            ),
            models.Index(
                fields=["trigger"], name="run_unfinished", condition=Q(ended_at__isnull=True)
            ),
            models.Index(
                fields=["environment"], name="run_waiting", condition=Q(status=Status.QUEUED)
            ),
            models.Index(fields=["environment", "queued_at", "id"], name="run_listed"),
            models.Index(fields=["trigger", "queued_at", "id"], name="run_of_trigger"),
            models.Index(fields=["worker", "queued_at", "id"], name="run_of_worker"),
            models.Index(
                fields=["environment", "status", "queued_at", "id"],
                name="run_of_status",
                condition=Q(ended_at__isnull=False),
            ),
            models.Index(
                fields=["environment", "ended_at"],
                include=["status", "cost_usd"],
                name="run_ended_summed",
                condition=Q(ended_at__isnull=False),
            ),
        )


class RunText(models.Model):
    """The long and rarely read half of a run; there once there is something to say."""

    run = models.OneToOneField(
        Run, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="text"
    )
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    mcp_url = models.CharField(max_length=2048, null=True)
    payload = JSONAsGivenField(null=True)
    error_message = models.CharField(max_length=8000, null=True)
    late_result = JSONAsGivenField(null=True)

    class Meta:
        db_table = "run_text"


class IdempotencyKey(models.Model):
    """A remembered `Idempotency-Key` of one caller on one trigger, with the run it made."""

    pk = models.CompositePrimaryKey("trigger_id", "caller_id", "key")
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="+")
    caller_id = models.UUIDField()
    key = models.CharField(max_length=255)
    body_digest = models.BinaryField(max_length=32)
    run = tenant_key("triggers.Run", related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "idempotency_key"
        indexes = (models.Index(fields=["created_at"], name="idempotency_key_old"),)


class Delivery(models.Model):
    """One completion webhook to be delivered for one run: the outbox row, written with the run's transition."""

    class Status(models.TextChoices):
        """Whether it still has to go out."""

        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="deliveries")
    run = tenant_key("triggers.Run", null=True, related_name="deliveries")
    # The `webhook-id` that a receiver may deduplicate by: a redelivery has the same.
    message_id = models.CharField(max_length=64)
    url = models.CharField(max_length=2048)
    host = models.CharField(max_length=255)
    body = models.TextField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    # When it is due. A sender that takes it moves this ahead: if it dies, the delivery is due again.
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    attempt_count = models.PositiveSmallIntegerField(default=0, db_default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "delivery"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="delivery_in_environment"),
            models.CheckConstraint(
                condition=Q(status="pending", next_attempt_at__isnull=False)
                | Q(status__in=("delivered", "dead"), next_attempt_at__isnull=True),
                name="delivery_pending_is_due",
            ),
            models.CheckConstraint(
                condition=Q(status="delivered", delivered_at__isnull=False)
                | (Q(delivered_at__isnull=True) & ~Q(status="delivered")),
                name="delivery_delivered_at",
            ),
        )
        indexes = (
            models.Index(
                fields=["next_attempt_at", "host"],
                name="delivery_due_by_host",
                condition=Q(status="pending"),
            ),
            models.Index(fields=["trigger", "created_at", "id"], name="delivery_listed"),
            models.Index(fields=["run"], name="delivery_of_run", condition=Q(run__isnull=False)),
        )


class DeliveryAttempt(models.Model):
    """One time that a delivery was sent, and what came of it."""

    pk = models.CompositePrimaryKey("delivery_id", "n")
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    delivery = tenant_key("triggers.Delivery", related_name="attempts")
    n = models.PositiveSmallIntegerField()
    at = models.DateTimeField()
    status_code = models.PositiveSmallIntegerField(null=True)
    duration_ms = models.PositiveIntegerField()
    error = models.CharField(max_length=100, null=True)
    # The first KiB, as text: bytes that are none are shown as U+FFFD.
    response_body = models.CharField(max_length=1024, null=True)

    class Meta:
        db_table = "delivery_attempt"
        constraints = (
            models.CheckConstraint(
                condition=Q(status_code__isnull=False) | Q(error__isnull=False),
                name="delivery_attempt_has_an_end",
            ),
        )


class Tick(models.Model):
    """A due time of a trigger's schedule and what was decided about it; or a whole gap of missed ones, by its first."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="ticks")
    tick_at = models.DateTimeField()
    last_tick_at = models.DateTimeField()
    decision = models.CharField(max_length=17, choices=Decision.choices)
    run = tenant_key("triggers.Run", null=True, related_name="+")
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
                    decision=Decision.SKIPPED_MISSED,
                    missed_count__gte=1,
                    last_tick_at__gte=models.F("tick_at"),
                )
                | (
                    Q(missed_count=0, last_tick_at=models.F("tick_at"))
                    & ~Q(decision=Decision.SKIPPED_MISSED)
                ),
                name="tick_missed_is_counted",
            ),
            models.CheckConstraint(condition=Q(decision__in=Decision.values), name="tick_decision"),
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


# Kept here and not in the serializer, since SQL and ORM readers share them.
RUN_COLUMNS = (
    "id", "environment_id", "trigger_id", "worker_id", "status", "source", "attempt",
    "retry_of_id", "scheduled_for", "available_at", "queued_at", "claimed_at", "started_at", "ended_at",
    "cancel_requested_at", "exit_code", "fault_class", "short_message", "model", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cost_usd", "num_turns", "session_id",
)  # fmt: skip
