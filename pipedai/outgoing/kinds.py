"""The kinds of messages: each app registers the kinds that it queues, and the scheduler sends them.

An app derives one table from `OutboxRow` and one from `SendAttempt`, and registers a `Kind` in its module `ready`. It
saves a row in the transaction of the message's cause, so that no message is lost or sent without cause. The kind's
`message` makes the message from the row. The `host` of a mail is `mail_host(address)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.outgoing.mails import Mail
from pipedai.outgoing.posts import Answer, Post, Result
from pipedai.sql import Row
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
    # The host of the message's URL, or for a mail the recipient's domain after an @. Senders limit how many messages
    # one host gets at once. It is empty if the URL has no host.
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
    """An attempt to send a message. A derived table has a foreign key to its outbox, and a composite primary key of
    that column and `n`. If environments own the rows, both tables have `environment_id`.
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
    """The CHECKs that tie an outbox's times to its status. `ended` has the statuses of messages that are not sent."""
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
    """The indexes by which `due` reads pending rows. `of_environments` says whether environments own the rows."""
    due = index("%(class)s_due_by_host", ["next_attempt_at", "host"], where=_PENDING)
    # The queries in `due` read the index in this order.
    columns = [*(["environment"] if of_environments else []), "host", "next_attempt_at"]
    return due, index("%(class)s_pending_by_host", columns, where=_PENDING)


class CannotSend(Exception):  # noqa: N818
    """The error that a kind's `message` raises if it can't make the message now; the attempt is repeated later. The
    first 100 characters of the text are kept with the attempt, and its readers see them.
    """

    result = Result.AGAIN


class NeverSend(CannotSend):
    """The error that a kind's `message` raises if the message must not be sent any more, as after its token expired."""

    result = Result.REFUSED


@dataclass(frozen=True, slots=True)
class Attempt:
    # The row as it was claimed, with the columns that the kind reads.
    row: Row
    # The status that the row has now.
    status: SendStatus
    # How many attempts there have been, including this one.
    count: int
    answer: Answer


class Queue:
    """Describes a table of rows that wait until they are due, for the statements of `due` that find and claim them. The
    texts are SQL about columns of the table, and the defaults fit an outbox.
    """

    table: str
    tenants: str | None
    shares: int
    per_host: int
    # Mails may take at most this many of the shares.
    mails: int = 0
    # The condition of rows that wait. A partial index with it begins with the environment, `host` and `due_at`.
    waits = "status = 'pending'"
    # The condition of a partial index of `due_at` alone. If none of its rows is due, nothing else is read.
    waits_somewhere = "status = 'pending'"
    host = "host"
    due_at = "next_attempt_at"
    tries = "attempt_count"
    # A condition that a waiting row `d` of the workspace `e.workspace_id` must also meet, so that it can be taken now.
    is_free = "true"
    # The id of a second party that takes turns besides the workspace, such as a user; NULL if there is none.
    by_whom = "NULL::uuid"
    # The statement that claims the rows with `%(ids)s` and returns them. If empty, the statement for outboxes is used.
    claims = ""
    # Whether one row is claimed at a time, by one scheduler at a time. This is needed if `is_free` counts claimed rows.
    one_by_one = False


@dataclass(frozen=True)
class Kind(Queue):
    """One kind of messages. It has shares, threads and connections of its own in each scheduler, so that a storm of one
    kind or a dead mail server delays no other (docs/decisions/outbox.md).
    """

    # A word in the singular, such as `webhook`. Log events, jobs, threads and metrics are named after it.
    name: str
    rows: type[OutboxRow]
    attempts: type[SendAttempt]
    # Makes the message of a claimed row. It runs in a thread that has no database connection and must not open one, so
    # `reads` and `joins` say what the claim reads for it. `row` has all columns of the outbox, and `claimed_at`, the
    # time of the claim. It may raise CannotSend or NeverSend.
    message: Callable[[Row], Post | Mail]
    # Is called in the transaction that records attempts, with these attempts, and writes their consequences.
    after_attempts: Callable[[Sequence[Attempt]], None] = lambda _: None
    # The table of the environments that own the rows, with the columns `id` and `workspace_id`, so that workspaces take
    # turns. None means that the rows are mails of no workspace, and that the domains of the recipients take turns.
    tenants: str | None = None
    # SQL that reads more for `message`: further columns, and joins to the claimed rows `d`, such as
    # `LEFT JOIN trigger t ON t.id = d.trigger_id`. The result must have each claimed row once, and no two columns of
    # the same name.
    reads: str = ""
    joins: str = ""
    # How many messages of this kind one scheduler sends at once: `shares` in all, and `per_host` to one host.
    shares: int = 8
    per_host: int = 4
    # Mails may take at most this many of the shares, so a scheduler has no more connections to the mail server.
    mails: int = 8
    # Whether the beginning of each answer is kept. False if an answer may repeat a secret of the message.
    keeps_answers: bool = True
    # Columns that become NULL when a message has been delivered or given up, such as a secret that nothing needs then.
    forgets: tuple[str, ...] = ()
    # How many threads record results. There are fewer of them than threads that send, because each has a database
    # connection.
    recorders: int = 2
    # How many delivered messages may be recorded in one transaction. If more than one, `after_attempts` must lock the
    # rows of several messages in a fixed order, because another recorder may lock them at the same time.
    recorded_at_once: int = 1

    @property
    def table(self) -> str:  # type: ignore[override]
        return self.rows._meta.db_table

    @property
    def row_name(self) -> str:
        return str(self.rows._meta.model_name)

    def event(self, what: str) -> str:
        return f"{self.name}.{what}"

    def naming(self, row: Row) -> dict[str, str]:
        return {f"{self.row_name}_id": str(row["id"])}

    @property
    def attempt_key(self) -> str:
        fields: list[models.Field[Any, Any]] = self.attempts._meta.pk_fields
        return fields[0].attname
