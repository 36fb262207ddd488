"""The tables of workers, pools, enrollments, and the events of workers' streams."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Lower, Now

from pipedai.ids import new_id
from pipedai.table_rules import check, has, index, lacks, unique
from triggers.runs import conditions
from workspaces.tenant_columns import (
    FileColumns,
    environment_key,
    in_environment,
    own_key,
    tenant_key,
)

ONLINE_WITHIN = conditions.ONLINE_WITHIN
MAX_CONCURRENCY = 1000


class Worker(models.Model):
    """A customer's machine that executes runs. It calls the API with one `wkt_` token of its own."""

    class AuthMode(models.TextChoices):
        """How the worker's agent pays for the model: by a Claude subscription or by an Anthropic API key."""

        CLAUDE_MAX = "claude_max"
        API_KEY = "api_key"

    # A UUIDv7, made when the worker registers.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment of the `wrk_` token or the enrollment with which the worker registered. It never changes.
    environment = environment_key("workers")
    # The worker's name for people. The first registration writes it, by default the hostname; admins may change it.
    label = models.CharField(max_length=255)
    # The machine's own name, which it reports at registration and which identifies it within an environment: a machine
    # that registers again under it is the same worker, unless an API key minted its `wrk_` token.
    hostname = models.CharField(max_length=255)
    # The operating system that the machine reported at its last registration.
    os = models.CharField(max_length=255)
    # The version of the worker program. A registration writes it, and so does each later call that reports another one.
    version = models.CharField(max_length=64)
    # How the worker's agent pays for the model: the machine reported it, or the admin chose it with the enrollment.
    auth_mode = models.CharField(max_length=10, choices=AuthMode.choices)
    # An opaque text that identifies the account which pays for the model; the machine makes it and sends it at
    # registration. NULL if it sent none. Workers of an environment with the same text share a usage limit. The API
    # never shows it.
    account_id = models.CharField(max_length=64, null=True)
    # Until when the worker gets no runs, because its account's usage limit was reached. A worker's report of a run sets
    # it; admins may clear it. NULL if no limit was ever reported, or an admin cleared it.
    limited_until = models.DateTimeField(null=True)
    # The largest number of runs that the worker may hold at once. Each registration writes it; admins may change it.
    max_concurrency = models.PositiveSmallIntegerField()
    # The SHA-256 of the worker's `wkt_` token. Each registration makes a new token. None if the token was revoked or
    # the worker deregistered: then the machine must register again.
    token_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # The IP address of the last registration. If a machine registers as a worker that exists already, the audit log
    # names the old and the new address.
    registered_from = models.GenericIPAddressField(null=True)
    # The `hos_` key of the host that enrolled the worker or minted its `wrk_` token. That host may change the worker
    # and stream its events. Each registration writes it; None if no host was involved.
    host_key = tenant_key("workspaces.ApiKey", null=True)
    # Whether the worker's events are recorded. The first request for its event stream sets this, and nothing unsets it.
    is_streamed = models.BooleanField(db_default=False)
    # The features of the worker, as its last poll said: words of FEATURES (`triggers.runs.conditions`). It gets no run
    # that needs another feature.
    features = ArrayField(models.CharField(max_length=16), default=list, db_default=[])
    # The problems that the worker reports about its machine: a list of `code` and `message`, empty if there are none.
    problems = models.JSONField(default=list, db_default=Value([], models.JSONField()))
    # Since when the worker has reported these problems. None if it reports none.
    problems_since = models.DateTimeField(null=True)
    # When somebody disabled the worker, which then finishes its runs and gets no others. None if it is enabled.
    disabled_at = models.DateTimeField(null=True)
    # Since when the worker waits for an admin's approval, because a `pwk_` key minted its `wrk_` token. Until the
    # approval it gets no run whose trigger has MCP headers. Registration sets this, approval clears it. None if
    # approved.
    unapproved_since = models.DateTimeField(null=True)
    # When the worker last polled or sent a heartbeat, to within 10 s. None if it has never called.
    last_seen_at = models.DateTimeField(null=True)
    # The id that the worker's process chose for itself. Polls write it. A process that ends signs the worker off only
    # if its id is still here, that is, if no other process has polled since. None if the process sends none.
    process_id = models.CharField(max_length=64, null=True)
    # When the worker's process signed off: the worker is offline until the first poll of another process.
    signed_off_at = models.DateTimeField(null=True)
    # When the worker registered for the first time. The database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the worker was deregistered: it then has no token, no list shows it, and another machine may use its
    # hostname. None if it is registered.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "worker"
        constraints = (
            in_environment("worker"),
            models.UniqueConstraint(
                "environment",
                Lower("hostname"),
                condition=lacks("deleted_at"),
                name="worker_hostname_in_environment",
            ),
            check(
                "worker_max_concurrency",
                Q(max_concurrency__gte=1, max_concurrency__lte=MAX_CONCURRENCY),
            ),
            check("worker_auth_mode", Q(auth_mode__in=("claude_max", "api_key"))),
            check("worker_deleted_has_no_token", lacks("deleted_at") | lacks("token_digest")),
        )
        indexes = (
            index("worker_listed", ["environment", "created_at", "id"]),
            index(
                "worker_of_account",
                ["environment", "account_id"],
                where=has("account_id", deleted_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return self.label


class Pool(FileColumns):
    """A group of workers, any of which may take the runs of the triggers that name the pool."""

    # Free text for people; empty if there is none.
    description = models.CharField(max_length=2000, blank=True)
    # When an admin deleted the pool; None if nobody did. The row stays, because runs refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "pool"
        constraints = (
            in_environment("pool"),
            own_key("pool", live=lacks("deleted_at")),
            models.UniqueConstraint(
                "environment",
                Lower("name"),
                condition=lacks("deleted_at"),
                name="pool_name_free_in_environment",
            ),
        )
        indexes = (
            index("pool_listed", ["environment", "created_at", "id"], where=lacks("deleted_at")),
        )


class PoolMember(models.Model):
    """A worker's membership in a pool. Deleting the pool or deregistering the worker deletes the row."""

    pk = models.CompositePrimaryKey("worker_id", "pool_id")
    environment = environment_key()
    worker = tenant_key("workers.Worker")
    pool = tenant_key("workers.Pool", related_name="members")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "pool_member"
        indexes = (index("pool_member_of_pool", ["pool", "worker"]),)


class Enrollment(models.Model):
    """The permission for one host to get its first worker and its `hos_` key, once, or for one command line to get its
    `pwk_` key. An admin issues a code; or the program asks for a pairing (RFC 8628), which has no environment until
    somebody approves it. It ends when it is redeemed (`consumed_at`), revoked or denied (`revoked_at`), or expires.
    """

    class Kind(models.TextChoices):
        """Who asked for the enrollment. `code`: an admin issued it. `device`: a host asked, which makes it a pairing.
        `key`: a command line asked, and gets a key that acts for the user who approves.
        """

        CODE = "code"
        DEVICE = "device"
        KEY = "key"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment in which the host gets its worker. None for a pairing that was not approved.
    environment = environment_key("enrollments", null=True)
    kind = models.CharField(max_length=6, choices=Kind.choices)
    # The label for the worker that the host will get. The admin who issued the code chose it, or the host that asked
    # for the pairing, so it is unverified. None if the host chooses the label when it redeems.
    label = models.CharField(max_length=255, null=True)
    # The role of a command line's key. The person who approves chooses it. None for hosts, and before the approval.
    role = models.CharField(max_length=8, null=True)
    # How the host's worker will pay for the model. The admin chooses it when issuing the code or approving the pairing.
    auth_mode = models.CharField(max_length=10, choices=Worker.AuthMode.choices)
    # The HMAC-SHA256 of the `enr_` code; for a pairing, of the device code with which the host asks for its tokens.
    code_digest = models.BinaryField(max_length=32, unique=True)
    # The HMAC-SHA256 of the code that a person types in the console to approve a pairing. None for an `enr_` code.
    user_code_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # The last four characters of the `enr_` code, by which people recognise it; for a pairing, of the device code.
    last_four = models.CharField(max_length=4)
    # The IP address of the host that asked for the pairing, shown to the person who decides. None for an `enr_` code.
    asked_from = models.GenericIPAddressField(null=True)
    # The program that a pairing's host named in its User-Agent header, shown to the person who decides.
    asked_by = models.CharField(max_length=255, null=True)
    # The seconds between two requests of a pairing's host for its tokens. An early request adds 5 (RFC 8628 §3.5).
    poll_seconds = models.PositiveSmallIntegerField(default=5)
    # When the host of a pairing last asked for its tokens before the approval. Each such request writes it.
    polled_at = models.DateTimeField(null=True)
    # The user who issued the code, or who approved or denied the pairing; None while nobody has decided.
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # From this time on nobody can approve or redeem it. By default a code lasts a day, and a pairing 10 minutes.
    expires_at = models.DateTimeField()
    # When the code was issued or the pairing approved. None for a pairing that waits, was denied, or expired.
    approved_at = models.DateTimeField(null=True)
    # When an admin revoked the enrollment or somebody denied the pairing. None if neither happened.
    revoked_at = models.DateTimeField(null=True)
    # When the host redeemed the enrollment, that is, exchanged it for its tokens. None until then.
    consumed_at = models.DateTimeField(null=True)
    # The pools that the host's worker joins when it redeems the code, as far as they still exist then. The admin who
    # issued the code chose them. None if it joins none; always None for a pairing.
    pool_ids = ArrayField(models.UUIDField(), null=True)
    # The worker that the host got when it redeemed the enrollment. None until then.
    worker = tenant_key("workers.Worker", null=True)

    class Meta:
        db_table = "enrollment"
        constraints = (
            check(
                "enrollment_kind",
                has("approved_at", kind="code", user_code_digest__isnull=True)
                | has("user_code_digest", kind__in=("device", "key")),
            ),
            check(
                "enrollment_approved_for_an_environment", lacks("approved_at") | has("environment")
            ),
            check(
                "enrollment_consumed_once_approved",
                lacks("consumed_at", "worker")
                | Q(
                    Q(kind="key") ^ has("worker"),
                    consumed_at__isnull=False,
                    approved_at__isnull=False,
                    revoked_at__isnull=True,
                ),
            ),
            check(
                "enrollment_role_of_key",
                has("approved_at", "role", kind="key")
                | Q(lacks("approved_at") | ~Q(kind="key"), role__isnull=True),
            ),
            check("enrollment_auth_mode", Q(auth_mode__in=("claude_max", "api_key"))),
            check("enrollment_only_code_joins_pools", Q(kind="code") | lacks("pool_ids")),
        )
        indexes = (
            index("enrollment_listed", ["environment", "created_at", "id"]),
            index(
                "enrollment_pending",
                ["asked_from"],
                where=lacks("approved_at", "revoked_at", kind__in=("device", "key")),
            ),
        )


class WorkerEvent(models.Model):
    """Something that happened to a worker. If `is_streamed`, its stream can repeat it for an hour; it is kept a day."""

    # A growing number that the database assigns. Streams send events in this order, and reconnect after it.
    id = models.BigAutoField(primary_key=True)
    environment = environment_key()
    worker = tenant_key("workers.Worker")
    # What happened, such as `run.claimed`: API.md lists all types. The module `worker_events` writes it.
    type = models.CharField(max_length=32)
    # When the event happened; the database writes it. For an event that reports silence, the moment at which the worker
    # had been silent for too long.
    at = models.DateTimeField(db_default=Now(), editable=False)
    # The fields of this type of event, such as `runId`, under their names in the API.
    data = models.JSONField(default=dict)

    class Meta:
        db_table = "worker_event"
        constraints = (
            # Several streams may notice at once that a worker is silent. This constraint lets only one of them record
            # it. It contains the environment so that the table could be distributed or partitioned by it.
            unique(
                "worker_event_one_silence",
                ["worker", "type", "at", "environment"],
                where=Q(type__in=("poll.error", "worker.stopped")),
            ),
        )
        indexes = (
            index("worker_event_streamed", ["worker", "id"]),
            index("worker_event_prunable", ["at"]),
        )


class WorkerSilence(models.Model):
    """A silence that a call has ended, long enough for an incident. A scheduler announces it, and deletes the row."""

    id = models.BigAutoField(primary_key=True)
    environment = environment_key()
    worker = tenant_key("workers.Worker")
    # The worker's last call before the silence. None if the worker had never called.
    last_seen_at = models.DateTimeField(null=True)
    # When a scheduler would have noticed the silence: ten minutes after the last call, or later if the service could
    # not be reached or no enabled trigger needed the worker.
    offline_at = models.DateTimeField()
    # When the worker called again.
    ended_at = models.DateTimeField()

    class Meta:
        db_table = "worker_silence"
        indexes = (index("worker_silence_next", ["environment", "id"]),)
