"""The tables of webhooks: the outbox of deliveries, and the attempts to send each of them."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import tenant_key
from workspaces.models import Environment


class Delivery(models.Model):
    """A webhook message that is to be sent, or was: a row of the outbox.

    The transaction that ends a run writes the row, so that the message of no ended run is lost. Users can add rows by
    asking for a redelivery or a test.
    """

    class Status(models.TextChoices):
        """Whether the delivery still has to be sent, was delivered, or was given up."""

        # The delivery will be sent at `next_attempt_at`, for the first time or again.
        PENDING = "pending"
        # The receiver has answered with 2xx.
        DELIVERED = "delivered"
        # The delivery has been given up: the receiver refused it, or the last attempt failed as well.
        DEAD = "dead"

    # The delivery's id: a UUIDv7, made by the process that queues the delivery.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment that owns the row. Every foreign key includes this column, so that no row can refer to a row of
    # another environment.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The trigger whose webhook is sent. At each attempt, the secret that signs the message is read from the trigger.
    trigger = tenant_key("triggers.Trigger", related_name="deliveries")
    # The run whose end the message reports; NULL for a test that a user asked for.
    run = tenant_key("triggers.Run", null=True, related_name="deliveries")
    # The value of the `webhook-id` header. A redelivery has the value of the original, by which a receiver recognises a
    # message that it already has.
    message_id = models.CharField(max_length=64)
    # Where the body is sent: the URL that the trigger had when the delivery was queued.
    url = models.CharField(max_length=2048)
    # The host in `url`. Senders limit by it how many requests one host gets at once. It is empty if the URL has none.
    host = models.CharField(max_length=255)
    # The JSON text of the message. Exactly these bytes are signed and sent.
    body = models.TextField()
    # Whether the delivery still has to be sent. Recording the result of an attempt changes it.
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    # When the delivery is to be sent; NULL once it is delivered or given up. A sender that begins an attempt first
    # moves this time ahead, so that another sender tries again later if this one dies.
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    # How many attempts have been recorded.
    attempt_count = models.PositiveSmallIntegerField(default=0, db_default=0)
    # When the delivery was queued, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the receiver's 2xx answer was recorded; NULL before that, and for a delivery that was given up.
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
                # The queries in triggers/webhooks/due_deliveries.py read this index in its order.
                fields=["environment", "host", "next_attempt_at"],
                name="delivery_pending_by_host",
                condition=Q(status="pending"),
            ),
            models.Index(fields=["trigger", "created_at", "id"], name="delivery_listed"),
            models.Index(fields=["run"], name="delivery_of_run", condition=Q(run__isnull=False)),
        )


class DeliveryAttempt(models.Model):
    """One attempt to send a delivery, and its result."""

    # The primary key is the delivery's id together with the number of the attempt.
    pk = models.CompositePrimaryKey("delivery_id", "n")
    # The environment that owns the row. Every foreign key includes this column, so that no row can refer to a row of
    # another environment.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The delivery that was sent.
    delivery = tenant_key("triggers.Delivery", related_name="attempts")
    # The number of the attempt, from 1: the delivery's `attempt_count` after the attempt.
    n = models.PositiveSmallIntegerField()
    # When the attempt began. The sender sends the request just after that.
    at = models.DateTimeField()
    # The HTTP status of the answer; NULL if there was none.
    status_code = models.PositiveSmallIntegerField(null=True)
    # How long the attempt took, in milliseconds.
    duration_ms = models.PositiveIntegerField()
    # Why no complete answer came in time, in a few words for the owner of the trigger; NULL if one came.
    error = models.CharField(max_length=100, null=True)
    # The first KiB of the answer's body as text, with U+FFFD for bytes that are not valid UTF-8. NULL if there was no
    # answer.
    response_body = models.CharField(max_length=1024, null=True)

    class Meta:
        db_table = "delivery_attempt"
        constraints = (
            models.CheckConstraint(
                condition=Q(status_code__isnull=False) | Q(error__isnull=False),
                name="delivery_attempt_has_an_end",
            ),
        )
