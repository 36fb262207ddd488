"""Triggers and the revisions of their prompts."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import tenant_key
from workspaces.models import Environment

MAX_RETRIES = 10
MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS = 10, 86_400


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
                # See triggers/schedules/due_triggers.py.
                fields=["next_run_at", "environment", "id"],
                name="trigger_due_in_environment",
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
