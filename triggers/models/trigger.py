"""The tables of triggers and of the revisions of their prompts."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from triggers.models.fields import JSONAsGivenField, tenant_key
from triggers.states import RecordEvents, RetryMode
from workspaces.files.columns import FileColumns, own_key
from workspaces.models import Environment

MAX_RETRIES = 10
MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS = 10, 86_400
MAX_ALERT_AFTER_FAILURES = 100
MIN_SUCCESS_DEADLINE_SECONDS, MAX_SUCCESS_DEADLINE_SECONDS = 60, 30 * 86_400
MAX_PREFER_SECONDS = 600
MIN_START_DEADLINE_SECONDS, MAX_START_DEADLINE_SECONDS = 60, 7 * 86_400
MAX_CONCURRENT_RUNS = 100


class Trigger(FileColumns):
    """A trigger: what to run, on which worker and when. Its secrets are stored encrypted (SPEC §8)."""

    class OverlapPolicy(models.TextChoices):
        """What happens at a due time while an earlier run of the trigger is unfinished."""

        # Another run is queued.
        QUEUE = "queue"
        # No run is made, and the due time gets the decision `skipped_overlap`.
        SKIP = "skip"

    # The trigger's id: a UUIDv7. `create_trigger` makes it before it saves the row, because the secrets are encrypted
    # for this id.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment that owns the row.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # The worker that executes new runs; NULL while none is chosen. Users set it, and deregistering a worker with
    # `reassignTo` replaces it. When it changes, queued runs move to the new worker as well.
    worker = tenant_key("workers.Worker", null=True, related_name="+")
    # The pool whose workers may execute new runs; NULL for none. If the trigger also has a worker, that worker comes
    # first. Users set it. When it changes, queued runs move to the new pool as well.
    pool = tenant_key("workers.Pool", null=True, related_name="+")
    # For how many seconds after a run came due only the trigger's worker may take it, before the pool's others may.
    # It counts only if the trigger has a pool. From 0 to MAX_PREFER_SECONDS; users set it.
    prefer_seconds = models.PositiveSmallIntegerField(default=60, db_default=60)
    # Within how many seconds after it came due a worker must claim a run, or else the run fails; NULL if a run waits
    # without a limit. Users set it. Each run gets a time of its own when it is queued.
    start_deadline_seconds = models.PositiveIntegerField(null=True)
    # The most runs of the trigger that may be claimed or running at the same time, on whatever workers, from 1 to
    # MAX_CONCURRENT_RUNS; NULL for no limit. Users set it.
    max_concurrent_runs = models.PositiveSmallIntegerField(null=True)
    # Whether a retry starts anew or continues the session of the run that it repeats. Users set it.
    retry_mode = models.CharField(
        max_length=7,
        choices=RetryMode.choices,
        default=RetryMode.RESTART,
        db_default=RetryMode.RESTART,
    )
    # The revision with the trigger's current prompt, model and output schema. Each change of one of these makes a new
    # revision, to which this column then points.
    revision = tenant_key("triggers.TriggerRevision", related_name="+")
    # The name that people gave the trigger. It need not be unique.
    name = models.CharField(max_length=200)
    # Free text for people; empty if there is none.
    description = models.CharField(max_length=2000, blank=True)
    # The URL of the MCP server that runs may use: that of the connection, if there is one. If its origin changes and no
    # new headers are given, the secret headers are removed.
    mcp_url = models.CharField(max_length=2048)
    # The connection whose headers runs send besides `mcp_headers`; NULL for none. Users set it, and deleting the
    # trigger removes it. The database refers to it together with the URL, so that its headers go nowhere else.
    connection = tenant_key("workspaces.Connection", null=True, related_name="triggers")
    # The secret headers for the MCP server: encrypted JSON, or NULL for none. Users write them, a rotation of the data
    # key encrypts them anew, and deleting the trigger removes them.
    mcp_headers = models.BinaryField(null=True)
    # The data key that encrypts `mcp_headers`; NULL if there are no headers. This column is always written together
    # with `mcp_headers`.
    mcp_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # The URL to which a message about each ended run is sent; NULL for no messages.
    webhook_url = models.CharField(max_length=2048, null=True)
    # The secret that signs webhooks, encrypted; NULL if they are not signed. Users write it, and a rotation of the data
    # key encrypts it anew. It stays when the trigger is deleted, because pending deliveries still need it.
    webhook_secret = models.BinaryField(null=True)
    # The data key that encrypts `webhook_secret`; NULL if there is no secret. This column is always written together
    # with `webhook_secret`.
    webhook_key = tenant_key("workspaces.DataKey", null=True, related_name="+")
    # The schedule as five crontab(5) fields; NULL for a trigger that runs on request only.
    schedule = models.CharField(max_length=200, null=True)
    # The IANA time zone in which `schedule` is read, for example `Europe/Berlin`.
    timezone = models.CharField(max_length=64, default="UTC")
    # A single due time besides those of the schedule, a whole minute; NULL for none. Users set it. The scheduler
    # removes it in the transaction in which it decides about it.
    run_once_at = models.DateTimeField(null=True)
    # The time at which the trigger comes due next, by its schedule or its single due time, whichever is earlier; NULL
    # if it is disabled, deleted or has neither. A change of these sets it. The scheduler moves it on in the transaction
    # in which it decides about the due time.
    next_run_at = models.DateTimeField(null=True)
    # Whether the trigger may make runs, by schedule, by request or as a retry. Users set it.
    enabled = models.BooleanField(default=True)
    # How many retries may follow the first attempt of a run, from 0 to MAX_RETRIES. Each run copies it when it is
    # queued.
    max_retries = models.PositiveSmallIntegerField(default=3)
    # How long a run may take, in seconds. Each run copies it when it is queued.
    timeout_seconds = models.PositiveIntegerField(default=1800)
    # What happens at a due time while an earlier run of the trigger is unfinished. Users set it.
    overlap_policy = models.CharField(
        max_length=5, choices=OverlapPolicy.choices, default=OverlapPolicy.QUEUE
    )
    # Whether a run that failed through the fault of infrastructure is retried even if its tool calls may have changed
    # something. Users set it. If it is false, `triggers.runs.retries` decides by the run's counts of tool calls.
    retry_after_effects = models.BooleanField(default=True, db_default=True)
    # Of which runs workers send what the CLI tells, as events of the run, and when. Users set it.
    record_events = models.CharField(
        max_length=8,
        choices=RecordEvents.choices,
        default=RecordEvents.FAILURES,
        db_default=RecordEvents.FAILURES,
    )
    # After how many final outcomes in a row that failed or timed out the trigger counts as failing, from 1 to
    # MAX_ALERT_AFTER_FAILURES; NULL if it never does. Users set it.
    alert_after_failures = models.PositiveSmallIntegerField(null=True, default=1, db_default=1)
    # Within how many seconds after a due time a run must succeed, or else the trigger counts as late; NULL if it never
    # does. Users set it.
    success_deadline_seconds = models.PositiveIntegerField(null=True)
    # How many US dollars a run may cost, more than 0; NULL for no limit. Users set it. A worker gets it with the run,
    # and ends a run that reaches it. Budgets reserve this amount.
    max_cost_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    # The rules that say which tool calls a person has to approve, as ApprovalRulesField reads them; NULL for none.
    # Users set it.
    approvals = JSONAsGivenField(null=True)
    # Whether runs have the CLI's own tools for shells, the web and files although the trigger has such rules. Users set
    # it.
    allow_host_tools = models.BooleanField(default=False, db_default=False)
    # Whether a run that was denied a call fails, even if it reports success. Users set it.
    fail_on_denied = models.BooleanField(default=False, db_default=False)
    # The user or the API key that last changed the trigger, for rules by which they may not approve; NULL if nobody but
    # the service did.
    changed_by = models.UUIDField(null=True)
    # When the row was inserted, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user last changed the trigger, by the database's clock. Making runs does not change it.
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user deleted the trigger; NULL if nobody did. The row stays, because runs refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trigger"
        constraints = (
            own_key("trigger", live=Q(deleted_at__isnull=True)),
            models.UniqueConstraint(fields=["environment", "id"], name="trigger_in_environment"),
            models.CheckConstraint(
                condition=Q(mcp_headers__isnull=True, mcp_key__isnull=True)
                | Q(mcp_headers__isnull=False, mcp_key__isnull=False),
                name="trigger_mcp_headers_have_a_key",
            ),
            models.CheckConstraint(
                condition=Q(webhook_secret__isnull=True, webhook_key__isnull=True)
                | Q(webhook_secret__isnull=False, webhook_key__isnull=False),
                name="trigger_webhook_secret_has_a_key",
            ),
            models.CheckConstraint(
                condition=Q(
                    Q(schedule__isnull=False) | Q(run_once_at__isnull=False),
                    next_run_at__isnull=False,
                    enabled=True,
                    deleted_at__isnull=True,
                )
                | (
                    Q(next_run_at__isnull=True)
                    & (
                        Q(enabled=False)
                        | Q(schedule__isnull=True, run_once_at__isnull=True)
                        | Q(deleted_at__isnull=False)
                    )
                ),
                name="trigger_next_run_at_is_true",
            ),
            # The single due time can't be passed over: whoever sets the next due time begins with it.
            models.CheckConstraint(
                condition=Q(run_once_at__isnull=True)
                | Q(next_run_at__isnull=True)
                | Q(next_run_at__lte=models.F("run_once_at")),
                name="trigger_comes_due_once",
            ),
            models.CheckConstraint(
                condition=Q(max_retries__lte=MAX_RETRIES), name="trigger_max_retries"
            ),
            models.CheckConstraint(
                condition=Q(
                    timeout_seconds__gte=MIN_TIMEOUT_SECONDS,
                    timeout_seconds__lte=MAX_TIMEOUT_SECONDS,
                ),
                name="trigger_timeout_seconds",
            ),
            models.CheckConstraint(
                condition=Q(overlap_policy__in=("queue", "skip")), name="trigger_overlap_policy"
            ),
            models.CheckConstraint(
                condition=Q(alert_after_failures__isnull=True)
                | Q(
                    alert_after_failures__gte=1,
                    alert_after_failures__lte=MAX_ALERT_AFTER_FAILURES,
                ),
                name="trigger_alert_after_failures",
            ),
            models.CheckConstraint(
                condition=Q(success_deadline_seconds__isnull=True)
                | Q(
                    success_deadline_seconds__gte=MIN_SUCCESS_DEADLINE_SECONDS,
                    success_deadline_seconds__lte=MAX_SUCCESS_DEADLINE_SECONDS,
                ),
                name="trigger_success_deadline_seconds",
            ),
            models.CheckConstraint(
                condition=Q(prefer_seconds__lte=MAX_PREFER_SECONDS), name="trigger_prefer_seconds"
            ),
            models.CheckConstraint(
                condition=Q(start_deadline_seconds__isnull=True)
                | Q(
                    start_deadline_seconds__gte=MIN_START_DEADLINE_SECONDS,
                    start_deadline_seconds__lte=MAX_START_DEADLINE_SECONDS,
                ),
                name="trigger_start_deadline_seconds",
            ),
            models.CheckConstraint(
                condition=Q(max_concurrent_runs__isnull=True)
                | Q(max_concurrent_runs__gte=1, max_concurrent_runs__lte=MAX_CONCURRENT_RUNS),
                name="trigger_max_concurrent_runs",
            ),
            models.CheckConstraint(
                condition=Q(retry_mode__in=RetryMode.values), name="trigger_retry_mode"
            ),
            models.CheckConstraint(
                condition=Q(record_events__in=RecordEvents.values), name="trigger_record_events"
            ),
            models.CheckConstraint(
                condition=Q(max_cost_usd__isnull=True) | Q(max_cost_usd__gt=0),
                name="trigger_max_cost_usd",
            ),
        )
        indexes = (
            models.Index(
                # The query in triggers/schedules/due_triggers.py reads this index in its order.
                fields=["next_run_at", "environment", "id"],
                name="trigger_due_in_environment",
                condition=Q(next_run_at__isnull=False),
            ),
            models.Index(
                fields=["environment", "created_at", "id"],
                name="trigger_listed",
                condition=Q(deleted_at__isnull=True),
            ),
            models.Index(
                fields=["worker", "created_at", "id"],
                name="trigger_of_worker",
                condition=Q(deleted_at__isnull=True),
            ),
            models.Index(
                fields=["pool"],
                name="trigger_of_pool",
                condition=Q(deleted_at__isnull=True, pool__isnull=False),
            ),
            # The database uses this index when it removes a connection, to make sure that no trigger uses it.
            models.Index(
                fields=["connection", "created_at", "id"],
                name="trigger_of_connection",
                condition=Q(connection__isnull=False),
            ),
            # The database uses this index when it removes a revision, to make sure that it is no trigger's present one.
            models.Index(fields=["revision", "environment"], name="trigger_of_revision"),
            # Polls find the triggers by this index of which as many runs are held as may be.
            models.Index(
                fields=["environment"],
                name="trigger_limited",
                condition=Q(deleted_at__isnull=True, max_concurrent_runs__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.name


class TriggerRevision(models.Model):
    """A prompt, model and output schema of a trigger. It never changes, so that runs refer to it."""

    # The revision's id: a UUIDv7. The services make it before they save the row, because trigger and revision refer to
    # each other.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    trigger = tenant_key("triggers.Trigger", related_name="revisions")
    # The text that the worker gives to the AI model, up to 256 KiB. It never changes.
    prompt = models.TextField()
    # The name of the AI model to use; NULL leaves the choice to the worker.
    model = models.CharField(max_length=200, null=True)
    # The JSON Schema 2020-12 of the run's output, as text and unchanged; NULL if a run need not have an output.
    output_schema = JSONAsGivenField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # What kind of actor made the revision, as in the audit log: a value of `pipedai.events.ActorType`; NULL if that is
    # not known.
    created_by_type = models.CharField(max_length=8, null=True)
    # The id of the user, API key or staff user who made the revision; NULL for the system, or if that is not known.
    created_by_id = models.UUIDField(null=True)

    class Meta:
        db_table = "trigger_revision"
        constraints = (
            models.UniqueConstraint(
                fields=["environment", "id"], name="trigger_revision_in_environment"
            ),
        )
        indexes = (
            models.Index(
                fields=["trigger", "created_at", "id"], name="trigger_revision_of_trigger"
            ),
        )
