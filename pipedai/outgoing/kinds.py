"""What apps send: each app registers its kind of messages, and the scheduler sends them.

An app that wants to send something makes two tables and a `Kind`, and registers it. Here is one whose rows belong to
environments and are sent over HTTP:

    class Notice(OutboxRow):
        environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="+", db_index=False)
        ...
        class Meta:
            db_table = "notice"
            constraints = outbox_constraints()
            indexes = outbox_indexes(of_environments=True)

    class NoticeAttempt(SendAttempt):
        pk = models.CompositePrimaryKey("notice_id", "n")
        environment = ...
        notice = tenant_key("notices.Notice", related_name="attempts")

    NOTICES = Kind("notice", Notice, NoticeAttempt, message_of, tenants="environment", shares=16)

    register_kind(NOTICES)  # in the module `ready` of the app

`Notice(host=host_of(url), ...).save()`, in the transaction of the cause, is all that it takes to send a notice. The
scheduler claims it within a quarter of a second, calls `message_of` with the row, sends what that returns, keeps the
attempt, and tries again as SPEC §7 says. For a mail, `host` is `mail_host(address)`, and `message_of` returns
a `Mail`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import models

from pipedai.outgoing.mails import Mail
from pipedai.outgoing.posts import Answer, Post, Result
from pipedai.outgoing.rows import OutboxRow, SendAttempt, SendStatus
from pipedai.sql import Row


class CannotSend(Exception):  # noqa: N818
    """The error that `message` of a kind raises if it can't make the message now. The attempt fails, and is repeated
    later.

    At most 100 characters of the error's text are kept with the attempt, and shown to whoever may see the attempts.
    """

    result = Result.AGAIN


class NeverSend(CannotSend):
    """The error that `message` of a kind raises if the message must not be sent any more, as when its token has
    expired. The message is then dead.
    """

    result = Result.REFUSED


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that has just been recorded, as `after_attempts` of a kind gets it."""

    # The row as it was claimed, with the columns that the kind reads.
    row: Row
    # The status that the row has now.
    status: SendStatus
    # How many attempts there have been, including this one.
    count: int
    answer: Answer


def _nothing(attempts: Sequence[Attempt]) -> None:
    pass


@dataclass(frozen=True)
class Kind:
    """One kind of messages, and the shares that it has in each scheduler.

    Each kind has shares, threads and database connections of its own, so a storm of one kind or a dead mail server
    delays no other kind (docs/decisions/outbox.md).
    """

    # A word in the singular, such as `webhook`. Log events, jobs, threads and metrics are named after it.
    name: str
    # The outbox, and the table of attempts.
    rows: type[OutboxRow]
    attempts: type[SendAttempt]
    # Makes the message of a claimed row. It runs in a thread that has no database connection and must not open one, so
    # `reads` and `joins` say what the claim reads for it. `row` has all columns of the outbox, and `claimed_at`, the
    # time of the claim. It may raise CannotSend or NeverSend.
    message: Callable[[Row], Post | Mail]
    # Is called with the attempts that a transaction records, in that transaction, and writes what follows from them.
    after_attempts: Callable[[Sequence[Attempt]], None] = _nothing
    # The table of the environments that own the rows, with the columns `id` and `workspace_id`. Workspaces then take
    # turns. None means that nobody owns the rows, which are mails, and that the domains of the recipients take turns.
    tenants: str | None = None
    # SQL that reads more for `message`: further columns, and joins to the claimed rows `d`, such as
    # `LEFT JOIN trigger t ON t.id = d.trigger_id`. The result must have each claimed row once, and no two columns of
    # the same name.
    reads: str = ""
    joins: str = ""
    # How many messages of this kind one scheduler sends at once: `shares` in all, and `per_host` to one host.
    shares: int = 8
    per_host: int = 4
    # How many of the shares mails may take, and so how many connections a scheduler has to the mail server.
    mails: int = 8
    # How many threads record results. There are fewer of them than threads that send, because each has a database
    # connection.
    recorders: int = 2
    # How many messages that their receivers took may be recorded in one transaction. Where it is more than one,
    # `after_attempts` must lock rows of several such messages in one order, as another recorder may do so meanwhile.
    recorded_at_once: int = 1

    @property
    def table(self) -> str:
        return self.rows._meta.db_table

    @property
    def row_name(self) -> str:
        """The word for one row, such as `delivery`."""
        return str(self.rows._meta.model_name)

    @property
    def rows_name(self) -> str:
        """The word for several rows, such as `deliveries`."""
        return str(self.rows._meta.verbose_name_plural).replace(" ", "_")

    def event(self, what: str) -> str:
        """Returns the name of a log event, such as `webhook.sent`."""
        return f"{self.name}.{what}"

    def naming(self, row: Row) -> dict[str, str]:
        """Returns the field by which log lines name a row, such as `delivery_id`."""
        return {f"{self.row_name}_id": str(row["id"])}

    @property
    def attempt_key(self) -> str:
        """The column of the attempts' table that names the row."""
        fields: list[models.Field[Any, Any]] = self.attempts._meta.pk_fields
        return fields[0].attname
