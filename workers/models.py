"""Registered machines."""

from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now

from pipedai.ids import new_id
from workspaces.models import Environment

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
    disabled_at = models.DateTimeField(null=True)
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
