"""The columns, constraints and indexes that all outboxes share.

The row of a message is written in the transaction that causes it, so none is lost or sent for nothing. An app derives
one table from `OutboxRow` and one from `SendAttempt`.
"""

from collections.abc import Sequence

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.table_rules import check, has, index, lacks

_PENDING = Q(status="pending")


class SendStatus(models.TextChoices):
    """Whether a message still has to be sent, was delivered, or was given up."""

    # The message will be sent at `next_attempt_at`, for the first time or again.
    PENDING = "pending"
    # The receiver has taken the message: it has answered with 2xx, or the mail server has accepted the mail.
    DELIVERED = "delivered"
    # The message has been given up: the receiver refused it, or the last attempt failed as well.
    DEAD = "dead"


class OutboxRow(models.Model):
    Status = SendStatus

    # The row's id: a UUIDv7, made by the process that queues the message.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # What the message is sent to: the host of its URL, or for a mail the recipient's domain after an @. Senders limit
    # by it how many messages one host gets at once. It is empty if the URL has no host.
    host = models.CharField(max_length=255)
    # Whether the message still has to be sent. Recording the result of an attempt changes it.
    status = models.CharField(max_length=9, choices=SendStatus.choices, default=SendStatus.PENDING)
    # When the message is to be sent; NULL once it is delivered or given up. A sender that begins an attempt first moves
    # this time ahead, so that another sender tries again later if this one dies.
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    # How many attempts have been recorded.
    attempt_count = models.PositiveSmallIntegerField(default=0, db_default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When it was recorded that the receiver took the message; NULL before that, and for a message that was given up.
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class SendAttempt(models.Model):
    """A derived table has a foreign key to its outbox, and a composite primary key of that column and `n`. If
    environments own the rows, both tables have `environment_id`.
    """

    # The number of the attempt, from 1: the outbox row's `attempt_count` after the attempt.
    n = models.PositiveSmallIntegerField()
    # When the attempt began. The sender sends the message just after that.
    at = models.DateTimeField()
    # The status of the answer, of HTTP or of SMTP; NULL if there was none.
    status_code = models.PositiveSmallIntegerField(null=True)
    duration_ms = models.PositiveIntegerField()
    # Why no complete answer came in time, in a few words for the owner of the message; NULL if one came.
    error = models.CharField(max_length=100, null=True)
    # The first KiB of the answer's body as text, with U+FFFD for bytes that are not valid UTF-8. NULL if there was no
    # answer, and for mails.
    response_body = models.CharField(max_length=1024, null=True)

    class Meta:
        abstract = True


def outbox_constraints(
    ended: Sequence[str] = ("delivered", "dead"),
) -> tuple[models.CheckConstraint, ...]:
    """The CHECKs that tie an outbox's times to its status. `ended` are all states that are not sent any more."""
    return (
        check(
            "%(class)s_pending_is_due",
            has("next_attempt_at", status="pending")
            | lacks("next_attempt_at", status__in=tuple(ended)),
        ),
        check(
            "%(class)s_delivered_at",
            has("delivered_at", status="delivered")
            | (lacks("delivered_at") & ~Q(status="delivered")),
        ),
    )


def attempt_constraints(name: str) -> tuple[models.CheckConstraint, ...]:
    return (check(name, has("status_code") | has("error")),)


def outbox_indexes(*, of_environments: bool) -> tuple[models.Index, ...]:
    """The indexes by which `due` reads pending rows. `of_environments`: environments own the rows."""
    due = index("%(class)s_due_by_host", ["next_attempt_at", "host"], where=_PENDING)
    # The queries in `due` read the index in this order.
    columns = [*(["environment"] if of_environments else []), "host", "next_attempt_at"]
    return due, index("%(class)s_pending_by_host", columns, where=_PENDING)
