"""The tables of workers: registered machines, the enrollments of hosts, and the events that streams send."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now

from pipedai.ids import new_id
from workspaces.models import ApiKey, Environment

# A worker is online if it polled or heartbeat within this time (SPEC §5).
ONLINE_WITHIN = timedelta(seconds=180)
MAX_CONCURRENCY = 1000


class Worker(models.Model):
    """A customer's machine that executes runs. It calls the API with its one `wkt_` token."""

    class AuthMode(models.TextChoices):
        """How the worker's agent pays for the model: by a Claude subscription or by an Anthropic API key."""

        CLAUDE_MAX = "claude_max"
        API_KEY = "api_key"

    # A UUIDv7, which the registration makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment of the registration token or of the enrollment; it never changes.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="workers", db_index=False
    )
    # The name that people see. The first registration writes it, by default the hostname; admins may change it.
    label = models.CharField(max_length=255)
    # The machine's name as it reported it at registration. It identifies the machine within its environment: a machine
    # that registers again under it is the same worker, unless a key minted its token.
    hostname = models.CharField(max_length=255)
    # The operating system that the machine reported at its last registration.
    os = models.CharField(max_length=255)
    # The version of the worker program. Registration writes it, and so does each later call that reports another one.
    version = models.CharField(max_length=64)
    # How the agent pays for the model, as the machine reported it or as the enrollment decided it.
    auth_mode = models.CharField(max_length=10, choices=AuthMode.choices)
    # The most runs that the worker may hold at once. Each registration writes it; admins may change it.
    max_concurrency = models.PositiveSmallIntegerField()
    # The SHA-256 of its `wkt_` token, which each registration replaces. None: the token was revoked, or the worker was
    # deregistered; it must register again.
    token_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # The IP address of the last registration. When a machine replaces another, the audit log names both addresses.
    registered_from = models.GenericIPAddressField(null=True)
    # The `hos_` key of the host that enrolled it or minted its registration token; that host may change the worker and
    # stream its events. Registration writes it; None for a worker whose token no host minted.
    host_key = models.ForeignKey(
        ApiKey,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # Whether its events are kept. The first request for its event stream sets it, and nothing clears it.
    is_streamed = models.BooleanField(db_default=False)
    # When somebody disabled it: it finishes the runs that it holds and gets no others. None: it is enabled.
    disabled_at = models.DateTimeField(null=True)
    # Since when it waits for an admin's approval: a `pwk_` key minted the token that registered it, so it gets no run
    # whose trigger has headers. Registration sets it, the approval clears it. None: it is approved.
    unapproved_since = models.DateTimeField(null=True)
    # When it polled or sent a heartbeat last; its calls write it, at most every 10 s. None: it has not called yet.
    last_seen_at = models.DateTimeField(null=True)
    # When it registered for the first time; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When it was deregistered: it has no token and is in no list any more, and its hostname is free. None: it was not.
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


class Enrollment(models.Model):
    """The permission by which a host gets its first worker and its `hos_` key, once: a code, or a pairing (RFC 8628).

    An admin issues a code, which is approved from the beginning. A host asks for a pairing, which belongs to no
    environment until an admin approves it. An enrollment ends when the host redeems it (`consumed_at`), when somebody
    revokes or denies it (`revoked_at`), or when it expires (`expires_at`).
    """

    class Kind(models.TextChoices):
        """`code`: an admin issued it; `device`: a host asked for it, as a pairing."""

        CODE = "code"
        DEVICE = "device"

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # Where the host gets its worker. Issuing a code and approving a pairing write it; None for a pairing without an
    # approval.
    environment = models.ForeignKey(
        Environment, null=True, on_delete=models.PROTECT, related_name="enrollments", db_index=False
    )
    # Whether it is a code or a pairing; it never changes.
    kind = models.CharField(max_length=6, choices=Kind.choices)
    # The label of the worker to be made. The admin who issued the code wrote it, or the host that asked for the
    # pairing: nobody has verified the latter. None: the host chooses it when it redeems.
    label = models.CharField(max_length=255, null=True)
    # How the worker will pay for the model. The admin chooses it when issuing the code or approving the pairing.
    auth_mode = models.CharField(max_length=10, choices=Worker.AuthMode.choices)
    # The HMAC-SHA256 of the `enr_` code, or of the device code by which a pairing's host asks for its tokens.
    code_digest = models.BinaryField(max_length=32, unique=True)
    # The HMAC-SHA256 of the code that a person types at /pair; None for an `enr_` code.
    user_code_digest = models.BinaryField(max_length=32, null=True, unique=True)
    # The last four characters of the `enr_` or device code. People recognise an `enr_` code by them.
    last_four = models.CharField(max_length=4)
    # The IP address of the host that asked for a pairing. The person who decides sees it; None for a code.
    asked_from = models.GenericIPAddressField(null=True)
    # The program that the host named (its User-Agent header). The person who decides sees it; None for a code.
    asked_by = models.CharField(max_length=255, null=True)
    # How many seconds a pairing's host must wait between two questions. Each question that comes too soon adds 5
    # (RFC 8628 §3.5).
    poll_seconds = models.PositiveSmallIntegerField(default=5)
    # When a pairing's host asked last, before the approval; its questions write it.
    polled_at = models.DateTimeField(null=True)
    # The user who issued the code, or who approved or denied the pairing; None while nobody has decided.
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # When the admin issued the code or the host asked for the pairing; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # From when on nobody can approve or redeem it. By default a code lives for a day; a pairing lives for 10 minutes.
    expires_at = models.DateTimeField()
    # When the code was issued or the pairing approved. None: the pairing waits, or was denied.
    approved_at = models.DateTimeField(null=True)
    # When an admin revoked it, or somebody denied the pairing. None: nobody did.
    revoked_at = models.DateTimeField(null=True)
    # When the host redeemed it. None: it has not.
    consumed_at = models.DateTimeField(null=True)
    # The worker that the host got when it redeemed; None until then.
    worker = models.ForeignKey(
        Worker,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )

    class Meta:
        db_table = "enrollment"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind="code", approved_at__isnull=False, user_code_digest__isnull=True)
                | Q(kind="device", user_code_digest__isnull=False),
                name="enrollment_kind",
            ),
            models.CheckConstraint(
                condition=Q(approved_at__isnull=True) | Q(environment__isnull=False),
                name="enrollment_approved_for_an_environment",
            ),
            models.CheckConstraint(
                condition=Q(consumed_at__isnull=True, worker__isnull=True)
                | Q(
                    consumed_at__isnull=False,
                    worker__isnull=False,
                    approved_at__isnull=False,
                    revoked_at__isnull=True,
                ),
                name="enrollment_consumed_once_approved",
            ),
            models.CheckConstraint(
                condition=Q(auth_mode__in=("claude_max", "api_key")), name="enrollment_auth_mode"
            ),
        )
        indexes = (
            models.Index(fields=["environment", "created_at", "id"], name="enrollment_listed"),
            models.Index(
                fields=["asked_from"],
                condition=Q(kind="device", approved_at__isnull=True, revoked_at__isnull=True),
                name="enrollment_pending",
            ),
        )


class WorkerEvent(models.Model):
    """One event of a worker whose `is_streamed` is set. Streams replay it for an hour; it is deleted after a day."""

    # A growing number, which the database makes: streams send events in its order, and readers resume after it.
    id = models.BigAutoField(primary_key=True)
    # The worker's environment.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The worker to which it happened.
    worker = models.ForeignKey(
        Worker, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    # What happened, such as `run.claimed` or `poll.error`; API.md lists all types. `worker_events.py` writes it.
    type = models.CharField(max_length=32)
    # When it happened. The database writes it; for silence it is the moment at which the silence became too long.
    at = models.DateTimeField(db_default=Now(), editable=False)
    # The fields that belong to the type, under their names in the API, such as `runId`.
    data = models.JSONField(default=dict)

    class Meta:
        db_table = "worker_event"
        constraints = (
            # Several streams may notice the same silence: the first of them records it, and no other can.
            models.UniqueConstraint(
                fields=["worker", "type", "at"],
                condition=Q(type__in=("poll.error", "worker.stopped")),
                name="worker_event_silence_told_once",
            ),
        )
        indexes = (
            models.Index(fields=["worker", "id"], name="worker_event_streamed"),
            models.Index(fields=["at"], name="worker_event_prunable"),
        )
