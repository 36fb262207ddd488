"""The outbox of completion webhooks, and what came of each attempt."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import tenant_key
from workspaces.models import Environment


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
        verbose_name_plural = "deliveries"
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
            models.Index(
                # See triggers/webhooks/due_deliveries.py.
                fields=["environment", "host", "next_attempt_at"],
                name="delivery_pending_by_host",
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
