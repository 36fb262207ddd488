"""Runs: the ledger, its long text and its idempotency keys. The database itself refuses a wrong state."""

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.sql import Row
from triggers.models.fields import JSONAsGivenField, tenant_key
from triggers.states import HELD, TERMINAL, EndedBy, FaultClass, Source, Status
from workspaces.models import Environment

# Kept here and not in the serializer, since SQL and ORM readers share them.
RUN_COLUMNS = (
    "id", "environment_id", "trigger_id", "worker_id", "status", "source", "attempt",
    "retry_of_id", "scheduled_for", "available_at", "queued_at", "claimed_at", "started_at", "ended_at",
    "cancel_requested_at", "exit_code", "fault_class", "short_message", "model", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cost_usd", "num_turns", "session_id",
)  # fmt: skip


def duration_ms(run: Row) -> int | None:
    """Milliseconds from start to end; None for a run that never started or has not ended (SPEC §6)."""
    if run["started_at"] is None or run["ended_at"] is None:
        return None
    return int((run["ended_at"] - run["started_at"]) / timedelta(milliseconds=1))


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

    All statements that insert or change one stand in `triggers/runs/statements.py`. Long text lies in RunText, so that
    these rows stay narrow.
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
    exit_code = models.BigIntegerField(null=True)
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
                fields=["environment", "status", "queued_at", "id"],
                name="run_unfinished_of_status",
                condition=Q(ended_at__isnull=True),
            ),
            models.Index(
                fields=["trigger", "status", "queued_at", "id"],
                name="run_of_trigger_and_status",
                condition=Q(ended_at__isnull=False),
            ),
            models.Index(
                fields=["worker", "status", "queued_at", "id"],
                name="run_of_worker_and_status",
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
    # Who got the headers of its trigger with this run, the latest first: a worker's id and the address that it polled
    # from, a space between them. Written by `triggers.runs.handout` when either differs from the latest; None before.
    handed_to = ArrayField(models.TextField(), null=True)

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
        indexes = (
            models.Index(fields=["created_at"], name="idempotency_key_old"),
            models.Index(fields=["run"], name="idempotency_key_of_run"),
        )
