"""The tables of channels, of the notices that go out over them, and of the addresses that get mail (SPEC §14)."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.outgoing import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from triggers.models.fields import tenant_key
from workspaces.models import Environment

# The longest e-mail address (RFC 5321 §4.5.3.1.3, less the angle brackets).
MAX_ADDRESS = 254


class Channel(models.Model):
    """A way by which an environment tells people or programs of its incidents: mail, a webhook, or Slack."""

    class Kind(models.TextChoices):
        """How a channel sends its notices."""

        # By mail, to each of the channel's addresses.
        EMAIL = "email"
        # As a signed request with a JSON body, as webhooks of triggers are sent.
        WEBHOOK = "webhook"
        # As a text to an incoming webhook of Slack, or of a service that understands the same request.
        SLACK = "slack"

    # The channel's id: a UUIDv7, made by the process that creates it.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment that owns the row.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The name that people gave it, 1 to 200 characters.
    name = models.CharField(max_length=200)
    # How it sends notices. It never changes.
    kind = models.CharField(max_length=7, choices=Kind.choices)
    # The addresses of a channel of the kind `email`, in lower case; empty for the others.
    emails = ArrayField(models.CharField(max_length=MAX_ADDRESS), default=list)
    # The URL of the other kinds, encrypted, because whoever knows it can post there; NULL for mail and once the channel
    # is deleted. Users write it, and a rotation of the data key encrypts it anew.
    url = models.BinaryField(null=True)
    # The data key that encrypts `url`; NULL if there is no URL.
    url_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # The host of the URL, all that is shown of it; empty for mail.
    host = models.CharField(max_length=255, default="", db_default="")
    # The secret that signs the notices of a webhook, encrypted; NULL if they are not signed.
    secret = models.BinaryField(null=True)
    # The data key that encrypts `secret`; NULL if there is no secret.
    secret_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # What it tells of: words out of `notices.channels.words.EVENTS`.
    events = ArrayField(models.CharField(max_length=30))
    # Whether it sends anything. What is pending when it is disabled is given up.
    enabled = models.BooleanField(default=True)
    # The user who made the channel; NULL if an API key or the service did.
    created_by = models.UUIDField(null=True)
    # When the channel was made, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user last changed it.
    updated_at = models.DateTimeField(db_default=Now())
    # When it was deleted; NULL while it is there. Its row stays for its notices.
    deleted_at = models.DateTimeField(null=True)
    # Since when its notices have been given up; NULL if the last one that ended was delivered, or none has ended.
    # Senders write it.
    failing_since = models.DateTimeField(null=True)
    # Why the last notice was given up, in a few words; NULL like `failing_since`.
    last_error = models.CharField(max_length=100, null=True)
    # How many of its notices were dropped because too many were pending.
    dropped_count = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "channel"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="channel_in_environment"),
            models.CheckConstraint(
                condition=Q(kind__in=("email", "webhook", "slack")), name="channel_kind"
            ),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=False)
                | Q(kind="email", emails__len__gte=1, url__isnull=True)
                | (~Q(kind="email") & Q(emails__len=0, url__isnull=False)),
                name="channel_has_a_target",
            ),
            models.CheckConstraint(
                condition=Q(url__isnull=True, url_key__isnull=True)
                | Q(url__isnull=False, url_key__isnull=False),
                name="channel_url_has_a_key",
            ),
            models.CheckConstraint(
                condition=Q(secret__isnull=True, secret_key__isnull=True)
                | Q(secret__isnull=False, secret_key__isnull=False, kind="webhook"),
                name="channel_secret_has_a_key",
            ),
            models.CheckConstraint(
                condition=Q(failing_since__isnull=False) | Q(last_error__isnull=True),
                name="channel_error_has_a_time",
            ),
        )
        indexes = (
            models.Index(
                fields=["environment", "created_at", "id"],
                name="channel_listed",
                condition=Q(deleted_at__isnull=True),
            ),
            # The end of every run looks here for channels that want to hear of it, and mostly finds none.
            models.Index(
                fields=["environment"],
                name="channel_of_outcomes",
                condition=Q(enabled=True, deleted_at__isnull=True, events__contains=["run.ended"]),
            ),
        )

    def __str__(self) -> str:
        return self.name


class Notice(OutboxRow):
    """A message of a channel that is to be sent, or was: a row of the outbox.

    The transaction of the cause writes the row. A channel with several addresses gets one for each of them.
    """

    class Status(models.TextChoices):
        """Whether a notice still has to be sent, and how it ended."""

        PENDING = "pending"
        DELIVERED = "delivered"
        # It was given up: refused, or not taken by the last attempt, or dropped because too many were pending.
        DEAD = "dead"
        # It was held back, and is told in a digest; `digest` says in which.
        DIGESTED = "digested"

    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    # The environment that owns the row.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The channel over which it goes. Its URL and secret are read at each attempt.
    channel = tenant_key("notices.Channel", related_name="notices")
    # What it tells: a word out of EVENTS, or `channel.test`, `channel.digest` or `address.confirm`.
    event = models.CharField(max_length=30)
    # The incident that it tells of; NULL if it tells of none. It is no foreign key, since incidents are pruned.
    incident_id = models.UUIDField(null=True)
    # The run that it tells of, the incident's cause or an ended one; NULL if none. It is no foreign key either.
    run_id = models.UUIDField(null=True)
    # The address that a mail goes to; empty for the other kinds.
    address = models.CharField(max_length=MAX_ADDRESS, default="", db_default="")
    # The JSON text of what it tells. A webhook sends it, and with a run also the run's output, which is read when it is
    # sent; the texts of mails and of Slack are made of it then. That of a digest grows until the digest is due.
    body = models.TextField()
    # When it may go out first. It counts against the limit of an hour from then on. For a digest this is the time at
    # which the channel may send again.
    send_at = models.DateTimeField(db_default=Now())
    # The digest that tells of this notice; NULL unless it is digested.
    digest_id = models.UUIDField(null=True)

    class Meta:
        db_table = "notice"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="notice_in_environment"),
            *outbox_constraints(ended=("delivered", "dead", "digested")),
            models.CheckConstraint(
                condition=Q(status="digested", digest_id__isnull=False)
                | (~Q(status="digested") & Q(digest_id__isnull=True)),
                name="notice_digested_has_a_digest",
            ),
            # A channel gathers in one digest at a time, for each address. A digest gathers until a sender claims it,
            # which moves `next_attempt_at`.
            models.UniqueConstraint(
                fields=["channel", "address", "environment"],
                name="notice_one_open_digest",
                condition=Q(event="channel.digest", status="pending", next_attempt_at=F("send_at")),
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=True),
            models.Index(fields=["channel", "created_at", "id"], name="notice_listed"),
            # Counts what a channel got in the last hour, and finds its oldest pending notices.
            models.Index(
                fields=["channel", "address", "send_at"],
                name="notice_sent_to",
                condition=~Q(status="digested"),
            ),
            models.Index(
                fields=["channel", "send_at"],
                name="notice_pending_of_channel",
                condition=Q(status="pending"),
            ),
            models.Index(
                fields=["created_at"], name="notice_prunable", condition=~Q(status="pending")
            ),
        )

    def __str__(self) -> str:
        return str(self.id)


class NoticeAttempt(SendAttempt):
    """One attempt to send a notice, and its result."""

    # The primary key is the notice's id together with the number of the attempt.
    pk = models.CompositePrimaryKey("notice_id", "n")
    # The environment that owns the row.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The notice that was sent.
    notice = tenant_key("notices.Notice", related_name="attempts")

    class Meta:
        db_table = "notice_attempt"
        constraints = attempt_constraints("notice_attempt_has_an_end")


class AskedAddress(models.Model):
    """An address outside of an environment's verified members that was asked whether it wants the environment's mail.

    It gets one mail that asks, and nothing else before it confirms (SPEC §14).
    """

    # The row's id, which the token in the mail names.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment whose notices the address would get.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS)
    # The user who added the address to a channel; for an API key, who minted it.
    asked_by = models.UUIDField()
    # When it was added, by the database's clock.
    asked_at = models.DateTimeField(db_default=Now(), editable=False)
    # When its owner confirmed that they want the mail; NULL if they have not.
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "asked_address"
        constraints = (
            models.UniqueConstraint(
                fields=["address", "environment"], name="asked_address_once_an_environment"
            ),
        )
        indexes = (
            # These count the new addresses of a day: of a user, and of an environment.
            models.Index(fields=["asked_by", "asked_at"], name="asked_address_by_user"),
            models.Index(fields=["environment", "asked_at"], name="asked_address_of_environment"),
        )

    def __str__(self) -> str:
        return str(self.id)


class RefusedAddress(models.Model):
    """An address whose owner wants no notices, of any environment, ever again."""

    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS, primary_key=True)
    # When its owner said so, by the database's clock.
    refused_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "refused_address"

    def __str__(self) -> str:
        return "an address that wants no notices"
