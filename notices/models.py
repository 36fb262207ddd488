"""The tables of channels, of the notices that go out over them and the addresses that get them, and of incidents."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now

from notices.states import Kind, SubjectType
from pipedai.ids import new_id
from pipedai.outgoing.kinds import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.table_rules import check, has, index, lacks, unique
from workspaces.tenant_columns import (
    FileColumns,
    TenantRow,
    environment_key,
    has_its_key,
    in_environment,
    own_key,
    sealed_column,
    tenant_key,
)

# The longest e-mail address (RFC 5321 §4.5.3.1.3, less the angle brackets).
MAX_ADDRESS = 254


class AskedAddress(models.Model):
    """Whether the owner of an address wants an environment's mail. Before they agree, they get only the one mail that
    asks. A user who names their own address, or who makes the environment, has agreed.
    """

    # The row's id, which the tokens in mails name. The id changes when somebody else removes the owner of the address
    # from the environment, so that links in earlier mails stop working.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key()
    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS)
    # The user who first named the address: by adding it to a channel (also with an API key that they minted), or by
    # leaving the environment. If this user owns the address, no mail asks for consent.
    asked_by = models.UUIDField()
    asked_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the owner of the address confirmed that they want the mail; NULL if they have not.
    confirmed_at = models.DateTimeField(null=True)
    # When the owner of the address refused the mail of this environment, by a link or by leaving it; NULL if they have
    # not, or have agreed after that.
    refused_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "asked_address"
        constraints = (unique("asked_address_once_an_environment", ["address", "environment"]),)
        indexes = (
            # These two indexes count the new addresses of a day: those of a user, and those of an environment.
            index("asked_address_by_user", ["asked_by", "asked_at"]),
            index("asked_address_of_environment", ["environment", "asked_at"]),
        )

    def __str__(self) -> str:
        return str(self.id)


class RefusedAddress(models.Model):
    # The address, in lower case.
    address = models.CharField(max_length=MAX_ADDRESS, primary_key=True)
    # When the owner of the address refused all notices, by the database's clock.
    refused_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "refused_address"

    def __str__(self) -> str:
        return "an e-mail address that wants no notices"


# The columns of a channel that are encrypted.
URL = sealed_column("channel", "url", "url_key_id")
SECRET = sealed_column("channel", "secret", "secret_key_id")


# The condition that a channel is enabled although its last notices were given up.
IS_FAILING = Q(failing_since__isnull=False, enabled=True, deleted_at__isnull=True)


class Channel(FileColumns):
    class Kind(models.TextChoices):
        """How a channel sends its notices."""

        # By mail, to each of the channel's addresses.
        EMAIL = "email"
        # As a signed request with a JSON body, as webhooks of triggers are sent.
        WEBHOOK = "webhook"
        # As a text to an incoming webhook of Slack, or of a service that understands the same request.
        SLACK = "slack"

    # How the channel sends notices. It never changes.
    kind = models.CharField(max_length=7, choices=Kind.choices)
    # The addresses of a channel of the kind `email`, in lower case; empty for the others.
    emails = ArrayField(models.CharField(max_length=MAX_ADDRESS), default=list)
    # The encrypted URL of a channel of the kind `webhook` or `slack`; NULL for mail, and once the channel is deleted.
    # Users write it, and a rotation of the data key encrypts it anew. It is encrypted because everybody who knows it
    # can post there.
    url = models.BinaryField(null=True)
    # The data key that encrypts `url`; NULL if there is no URL.
    url_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # The host of the URL; empty for mail. It is the only part of the URL that is shown.
    host = models.CharField(max_length=255, default="", db_default="")
    # The secret that signs the notices of a webhook, encrypted; NULL if they are not signed.
    secret = models.BinaryField(null=True)
    # The data key that encrypts `secret`; NULL if there is no secret.
    secret_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # The events that the channel tells of: words from `notices.states.EVENTS`.
    events = ArrayField(models.CharField(max_length=32))
    # The triggers whose results `run.result` tells; NULL means all. These are no foreign keys, because a deleted
    # trigger ends no more runs and so does no harm here.
    trigger_ids = ArrayField(models.UUIDField(), null=True)
    # Which final outcomes `run.result` tells: `always`, `failed`, or a list of clauses. The clauses must all hold for a
    # document of the run's status, output and payload.
    tells_when = models.JSONField(db_default=Value("always", models.JSONField()))
    # When the channel sends a summary: `at` as HH:MM, `timezone`, and `weekdays` from `mon` to `sun`. NULL if none.
    summary = models.JSONField(null=True)
    # When the next summary is due; NULL if there is none, or while the channel is disabled. The transaction that queues
    # a summary sets the next time.
    summary_due_at = models.DateTimeField(null=True)
    # The start of the time that the next summary covers; NULL like `summary_due_at`.
    summary_since = models.DateTimeField(null=True)
    # Whether the channel sends notices. Notices that are pending when the channel is disabled are given up.
    enabled = models.BooleanField(default=True)
    # The user who made the channel; NULL if an API key or the service did.
    created_by = models.UUIDField(null=True)
    updated_at = models.DateTimeField(db_default=Now())
    # When the channel was deleted; NULL if it is not. The row stays, because its notices refer to it.
    deleted_at = models.DateTimeField(null=True)
    # Since when all of the channel's notices have been given up; NULL if the last notice that ended was delivered, or
    # if none has ended. Senders write it.
    failing_since = models.DateTimeField(null=True)
    # Why the last notice was given up, in a few words; NULL like `failing_since`.
    last_error = models.CharField(max_length=100, null=True)
    # How many of its notices had no row of their own because the environment had too many pending.
    dropped_count = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "channel"
        constraints = (
            own_key("channel", live=lacks("deleted_at")),
            in_environment("channel"),
            check("channel_kind", Q(kind__in=("email", "webhook", "slack"))),
            check(
                "channel_has_a_target",
                has("deleted_at")
                | Q(kind="email", emails__len__gte=1, url__isnull=True)
                | (~Q(kind="email") & Q(emails__len=0, url__isnull=False)),
            ),
            has_its_key("channel", "url"),
            check(
                "channel_secret_has_a_key",
                lacks("secret", "secret_key")
                | Q(secret__isnull=False, secret_key__isnull=False, kind="webhook"),
            ),
            check(
                "channel_error_has_a_time",
                has("failing_since") | lacks("last_error"),
            ),
            check(
                "channel_summary_is_due",
                lacks("summary_due_at", "summary_since")
                | Q(
                    summary__isnull=False,
                    summary_due_at__isnull=False,
                    summary_since__isnull=False,
                    enabled=True,
                    deleted_at__isnull=True,
                ),
            ),
        )
        indexes = (
            index(
                "channel_listed",
                ["environment", "created_at", "id"],
                where=lacks("deleted_at"),
            ),
            # The admin pages find the failing channels by this index.
            index("channel_failing", ["id"], where=IS_FAILING),
            # The end of every run reads this index to find the channels that tell of ended runs. Most environments have
            # none.
            index(
                "channel_of_outcomes",
                ["environment"],
                where=Q(
                    enabled=True,
                    deleted_at__isnull=True,
                    events__overlap=["run.ended", "run.result"],
                ),
            ),
            # The scheduler finds the due summaries by this index.
            index(
                "channel_summary_next",
                ["environment", "summary_due_at"],
                where=has("summary_due_at"),
            ),
        )


class Notice(OutboxRow):
    """A message of a channel to one address. The transaction that causes it writes this row of the outbox."""

    class Status(models.TextChoices):
        """Whether a notice still has to be sent, and how it ended."""

        PENDING = "pending"
        DELIVERED = "delivered"
        # It was given up: the receiver refused it, the last attempt failed, or it was dropped because too many were
        # pending.
        DEAD = "dead"
        # It was held back and is told in a digest. The column `digest_id` names the digest.
        DIGESTED = "digested"

    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    environment = environment_key()
    # The channel that sends the notice. The channel's URL and secret are read at each attempt.
    channel = tenant_key("notices.Channel", related_name="notices")
    # What the notice tells: a word from EVENTS, or `channel.test`, `channel.digest`, `channel.summary` or
    # `address.confirm`.
    event = models.CharField(max_length=32)
    # The incident that the notice tells of; NULL if there is none. It is no foreign key, because incidents are pruned.
    incident_id = models.UUIDField(null=True)
    # The run that the notice tells of: the incident's cause, or a run that ended; NULL if there is none. It is no
    # foreign key, because runs are pruned.
    run_id = models.UUIDField(null=True)
    # The approval that the notice tells of; NULL if there is none. It is no foreign key, because runs are pruned.
    approval_id = models.UUIDField(null=True)
    # The address that a mail goes to; empty for the other kinds.
    address = models.CharField(max_length=MAX_ADDRESS, default="", db_default="")
    # The content of the notice as JSON text. A webhook sends this text with the run's output, which is read at each
    # attempt. The texts of mails and of Slack are made from it at each attempt. The body of a digest grows until the
    # digest is due.
    body = models.TextField()
    # When the notice may first be sent. It counts against the hourly limit from this time on. For a digest this is the
    # time at which the limit allows the channel to send again.
    send_at = models.DateTimeField(db_default=Now())
    # Whether the notice tells the result of a run, or is a digest of results. Results have an hourly limit of their
    # own, so that a flood of them does not hold back the news of an incident.
    tells_results = models.BooleanField(default=False, db_default=False)
    # The digest that tells of this notice; NULL unless the notice is digested.
    digest_id = models.UUIDField(null=True)

    class Meta:
        db_table = "notice"
        constraints = (
            in_environment("notice"),
            *outbox_constraints(ended=("delivered", "dead", "digested")),
            check(
                "notice_digested_has_a_digest",
                Q(status="digested", digest_id__isnull=False)
                | (~Q(status="digested") & lacks("digest_id")),
            ),
            # A channel has for each address at most one open digest of results, and one of other notices. A digest is
            # open until a sender claims it, because the claim changes `next_attempt_at`.
            unique(
                "notice_one_open_digest",
                ["channel", "address", "environment", "tells_results"],
                where=Q(event="channel.digest", status="pending", next_attempt_at=F("send_at")),
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=True),
            index("notice_listed", ["channel", "created_at", "id"]),
            # This index counts a channel's notices of the last hour.
            index(
                "notice_sent_to",
                ["channel", "address", "tells_results", "send_at"],
                where=~Q(status="digested"),
            ),
            index("notice_pending_of_channel", ["channel", "send_at"], where=Q(status="pending")),
            # This index counts the mails to an address, of all channels and environments.
            index(
                "notice_mailed_to",
                ["address", "tells_results", "send_at"],
                where=~Q(status="digested") & ~Q(address=""),
            ),
            # This index finds who was told of an incident.
            index(
                "notice_of_incident",
                ["incident_id", "created_at"],
                where=has("incident_id"),
            ),
            # This index finds who was told of an approval.
            index(
                "notice_of_approval",
                ["approval_id", "created_at"],
                where=has("approval_id"),
            ),
            index("notice_prunable", ["created_at"], where=~Q(status="pending")),
        )

    def __str__(self) -> str:
        return str(self.id)


class NoticeAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("notice_id", "n")
    environment = environment_key()
    notice = tenant_key("notices.Notice", related_name="attempts")

    class Meta:
        db_table = "notice_attempt"
        constraints = attempt_constraints("notice_attempt_has_an_end")


class Incident(TenantRow):
    """Something that is wrong, until it is over. A subject has one open incident of each kind."""

    # What is wrong; see `notices.states.Kind`.
    kind = models.CharField(max_length=22, choices=Kind.choices)
    # The kind of thing that the incident is about. The kind of the incident decides it (`IncidentNeed.subject`).
    subject_type = models.CharField(max_length=10, choices=SubjectType.choices)
    # The id of the thing that the incident is about. It is no foreign key, because such things are in several tables.
    subject_id = models.UUIDField()
    # The name of that thing when the incident was opened.
    subject_name = models.CharField(max_length=255)
    # The run that showed the cause; NULL if no single run did. It is no foreign key, since the run may be pruned.
    run_id = models.UUIDField(null=True)
    # The cause in one sentence for people, up to 300 characters.
    message = models.CharField(max_length=300)
    opened_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the incident was closed, because its cause went away or its subject is not watched any more; NULL while open.
    closed_at = models.DateTimeField(null=True)
    # When somebody first acknowledged the incident; NULL if nobody has.
    acknowledged_at = models.DateTimeField(null=True)
    # The user who acknowledged the incident; NULL if nobody has, or if an API key did.
    acknowledged_by = models.UUIDField(null=True)
    # How many notices about the opening, the reminders and the recovery were queued for channels. `notices.incidents`
    # adds to it.
    notice_count = models.PositiveIntegerField(default=0, db_default=0)
    # How many times people were reminded of the incident.
    reminder_count = models.PositiveSmallIntegerField(default=0, db_default=0)
    # When the scheduler next reminds people; NULL if it will not, because the incident is closed or acknowledged, or
    # because all reminders were sent.
    remind_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "incident"
        constraints = (
            unique(
                "incident_one_open", ["subject_id", "kind", "environment"], where=lacks("closed_at")
            ),
            check("incident_kind", Q(kind__in=Kind.values)),
            check("incident_subject_type", Q(subject_type__in=SubjectType.values)),
            check(
                "incident_closed_after_opening",
                lacks("closed_at") | Q(closed_at__gte=F("opened_at")),
            ),
            check(
                "incident_acknowledged_has_a_time",
                lacks("acknowledged_by") | has("acknowledged_at"),
            ),
            check(
                "incident_reminded_is_open",
                lacks("remind_at") | lacks("closed_at", "acknowledged_at"),
            ),
        )
        indexes = (
            index("incident_listed", ["environment", "opened_at", "id"]),
            index("incident_open", ["environment", "opened_at", "id"], where=lacks("closed_at")),
            index("incident_closed", ["environment", "opened_at", "id"], where=has("closed_at")),
            index("incident_of_kind", ["environment", "kind", "opened_at", "id"]),
            index("incident_of_subject", ["subject_id", "opened_at", "id"]),
            index("incident_remind_next", ["environment", "remind_at"], where=has("remind_at")),
            # This index finds the open incidents of one kind for the scheduler, and the old closed ones for `prune`.
            index("incident_watched", ["kind", "id"], where=lacks("closed_at")),
            index("incident_prunable", ["closed_at"], where=has("closed_at")),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject_name}"


class UntoldOutcome(TenantRow):
    """A final outcome of a run that the scheduler still has to tell the channels. The transaction that ends the run
    writes the row if a channel of the environment tells of ended runs. Queueing the notices removes it.
    """

    # The run that ended. It is no foreign key, because runs are pruned.
    run_id = models.UUIDField()

    class Meta:
        db_table = "untold_outcome"
        indexes = (index("untold_outcome_next", ["environment", "id"]),)
