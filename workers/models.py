"""Registered machines, how hosts enroll them, and what is told of them as it happens."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now

from pipedai.ids import new_id
from workspaces.models import ApiKey, Environment

# A worker is online if it polled or heartbeat within this time (SPEC §5).
ONLINE_WITHIN = timedelta(seconds=180)
MAX_CONCURRENCY = 1000


class Worker(models.Model):
    """A machine of a customer's; holds one `wkt_` token."""

    class AuthMode(models.TextChoices):
        """How its agent pays for the model."""

        CLAUDE_MAX = "claude_max"
        API_KEY = "api_key"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="workers", db_index=False
    )
    label = models.CharField(max_length=255)
    hostname = models.CharField(max_length=255)
    os = models.CharField(max_length=255)
    version = models.CharField(max_length=64)
    auth_mode = models.CharField(max_length=10, choices=AuthMode.choices)
    max_concurrency = models.PositiveSmallIntegerField()
    # None: revoked; the worker must register again.
    token_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # The address that registered it last, to be told apart from one that replaces it.
    registered_from = models.GenericIPAddressField(null=True)
    # The hos_ key of the host that brought it in, which may change and stream it; None for one registered by hand.
    host_key = models.ForeignKey(
        ApiKey,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # Whether its events are kept, since somebody streams them or once did.
    is_streamed = models.BooleanField(db_default=False)
    disabled_at = models.DateTimeField(null=True)
    # Since when it waits for an admin's approval, as a `pwk_` key minted the token that registered it: it gets no run
    # whose trigger has headers. None: it is approved.
    unapproved_since = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "worker"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="worker_in_environment"),
            models.UniqueConstraint(
                "environment",
                Lower("hostname"),
                condition=Q(deleted_at__isnull=True),
                name="worker_hostname_in_environment",
            ),
            models.CheckConstraint(
                condition=Q(max_concurrency__gte=1, max_concurrency__lte=MAX_CONCURRENCY),
                name="worker_max_concurrency",
            ),
            models.CheckConstraint(
                condition=Q(auth_mode__in=("claude_max", "api_key")), name="worker_auth_mode"
            ),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(token_digest__isnull=True),
                name="worker_deleted_has_no_token",
            ),
        )
        indexes = (models.Index(fields=["environment", "created_at", "id"], name="worker_listed"),)

    def __str__(self) -> str:
        return self.label


class Enrollment(models.Model):
    """How a host gets a worker and its `hos_` key: a code that an admin issued, or a pairing that an admin approves.

    A code is approved from the beginning, a pairing belongs to no environment until it is. It ends by being redeemed
    (`consumed_at`), revoked or denied (`revoked_at`), or by expiring.
    """

    class Kind(models.TextChoices):
        """Who begins."""

        CODE = "code"
        DEVICE = "device"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, null=True, on_delete=models.PROTECT, related_name="enrollments", db_index=False
    )
    kind = models.CharField(max_length=6, choices=Kind.choices)
    # Unverified: whoever asked for a pairing wrote it.
    label = models.CharField(max_length=255, null=True)
    auth_mode = models.CharField(max_length=10, choices=Worker.AuthMode.choices)
    # HMACs: of the enr_ or device code, and of what a person types.
    code_digest = models.BinaryField(max_length=32, unique=True)
    user_code_digest = models.BinaryField(max_length=32, null=True, unique=True)
    last_four = models.CharField(max_length=4)
    # Who asked for a pairing, as the person who approves it is shown.
    asked_from = models.GenericIPAddressField(null=True)
    asked_by = models.CharField(max_length=255, null=True)
    # How long a pairing's host must wait between two questions, and when it asked last.
    poll_seconds = models.PositiveSmallIntegerField(default=5)
    polled_at = models.DateTimeField(null=True)
    # Who issued the code, approved or denied the pairing.
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    approved_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    consumed_at = models.DateTimeField(null=True)
    worker = models.ForeignKey(
        Worker,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )

    class Meta:
        db_table = "enrollment"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind="code", approved_at__isnull=False, user_code_digest__isnull=True)
                | Q(kind="device", user_code_digest__isnull=False),
                name="enrollment_kind",
            ),
            models.CheckConstraint(
                condition=Q(approved_at__isnull=True) | Q(environment__isnull=False),
                name="enrollment_approved_for_an_environment",
            ),
            models.CheckConstraint(
                condition=Q(consumed_at__isnull=True, worker__isnull=True)
                | Q(
                    consumed_at__isnull=False,
                    worker__isnull=False,
                    approved_at__isnull=False,
                    revoked_at__isnull=True,
                ),
                name="enrollment_consumed_once_approved",
            ),
            models.CheckConstraint(
                condition=Q(auth_mode__in=("claude_max", "api_key")), name="enrollment_auth_mode"
            ),
        )
        indexes = (
            models.Index(fields=["environment", "created_at", "id"], name="enrollment_listed"),
            models.Index(
                fields=["asked_from"],
                condition=Q(kind="device", approved_at__isnull=True, revoked_at__isnull=True),
                name="enrollment_pending",
            ),
        )


class WorkerEvent(models.Model):
    """Something that happened to a worker while somebody streamed its events. Kept a day; replayed for an hour."""

    id = models.BigAutoField(primary_key=True)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    worker = models.ForeignKey(
        Worker, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    type = models.CharField(max_length=32)
    at = models.DateTimeField(db_default=Now(), editable=False)
    # What the type needs beside it, by the API's names.
    data = models.JSONField(default=dict)

    class Meta:
        db_table = "worker_event"
        constraints = (
            # Who silence is noticed by first, tells it; nobody tells it twice.
            models.UniqueConstraint(
                fields=["worker", "type", "at"],
                condition=Q(type__in=("poll.error", "worker.stopped")),
                name="worker_event_silence_told_once",
            ),
        )
        indexes = (
            models.Index(fields=["worker", "id"], name="worker_event_streamed"),
            models.Index(fields=["at"], name="worker_event_prunable"),
        )
