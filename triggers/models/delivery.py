"""The tables of webhooks: the outbox of deliveries, and the attempts to send each (see `OutboxRow`, `SendAttempt`)."""

from django.db import models

from pipedai.outgoing import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.table_rules import has, index
from workspaces.tenant_columns import environment_key, in_environment, tenant_key


class Delivery(OutboxRow):
    """A webhook message. It is written in the transaction that ends a run, or at a user's request."""

    # The environment that owns the row.
    environment = environment_key()
    # The trigger whose webhook is sent. At each attempt, the secret that signs the message is read from the trigger.
    trigger = tenant_key("triggers.Trigger", related_name="deliveries")
    # The run whose end the message reports; NULL for a test that a user asked for.
    run = tenant_key("triggers.Run", null=True, related_name="deliveries")
    # The value of the `webhook-id` header. A redelivery has the value of the original, by which a receiver recognises a
    # message that it already has.
    message_id = models.CharField(max_length=64)
    # Where the body is sent: the URL that the trigger had when the delivery was queued.
    url = models.CharField(max_length=2048)
    # The JSON text of the message. Exactly these bytes are signed and sent.
    body = models.TextField()

    class Meta:
        db_table = "delivery"
        verbose_name_plural = "deliveries"
        constraints = (
            in_environment("delivery"),
            *outbox_constraints(),
        )
        indexes = (
            *outbox_indexes(of_environments=True),
            index("delivery_listed", ["trigger", "created_at", "id"]),
            index("delivery_of_run", ["run"], where=has("run")),
        )


class DeliveryAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("delivery_id", "n")
    environment = environment_key()
    delivery = tenant_key("triggers.Delivery", related_name="attempts")

    class Meta:
        db_table = "delivery_attempt"
        constraints = attempt_constraints("delivery_attempt_has_an_end")
