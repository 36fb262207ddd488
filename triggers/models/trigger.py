"""The tables of triggers: their settings, revisions of their prompts, their health, and ticks of their schedules."""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Greatest, Now

from pipedai.table_rules import check, has, index, lacks, unique
from triggers.models.run import JSONAsGivenField
from triggers.states import STRETCHED, Carry, Decision, RecordEvents, RetryMode
from workspaces.tenant_columns import (
    FileColumns,
    TenantRow,
    environment_key,
    in_environment,
    own_key,
    sealed_column,
    tenant_key,
)

MCP_HEADERS = sealed_column("trigger", "mcp_headers", "mcp_key_id")
WEBHOOK_SECRET = sealed_column("trigger", "webhook_secret", "webhook_key_id")

MAX_PREFER_SECONDS, MAX_CONCURRENT_RUNS = 600, 100
# The least and the greatest of each number that users set. The database checks them, and so does the API.
BOUNDS: Final = {
    "max_retries": (0, 10),
    "timeout_seconds": (10, 86_400),
    "alert_after_failures": (1, 100),
    "success_deadline_seconds": (60, 30 * 86_400),
    "prefer_seconds": (0, MAX_PREFER_SECONDS),
    "start_deadline_seconds": (60, 7 * 86_400),
    "max_concurrent_runs": (1, MAX_CONCURRENT_RUNS),
}
_NEVER_NULL = ("max_retries", "timeout_seconds", "prefer_seconds")


def _bounded(column: str) -> models.CheckConstraint:
    least, most = BOUNDS[column]
    # A positive column refuses numbers below 0 by itself.
    bounds = Q(**{f"{column}__gte": least} if least else {}, **{f"{column}__lte": most})
    condition = bounds if column in _NEVER_NULL else lacks(column) | bounds
    return check(f"trigger_{column}", condition)


class Trigger(FileColumns):
    """A trigger: what to run, on which worker and when. Its secrets are stored encrypted."""

    class OverlapPolicy(models.TextChoices):
        """What happens at a due time while an earlier run of the trigger is unfinished."""

        # Another run is queued.
        QUEUE = "queue"
        # No run is made, and the due time gets the decision `skipped_overlap`.
        SKIP = "skip"

    # The worker that executes new runs; NULL while none is chosen. Users set it, and deregistering a worker with
    # `reassignTo` replaces it. When it changes, queued runs move to the new worker as well.
    worker = tenant_key("workers.Worker", null=True)
    # The pool whose workers may execute new runs; NULL for none. If the trigger also has a worker, that worker comes
    # first. Users set it. When it changes, queued runs move to the new pool as well.
    pool = tenant_key("workers.Pool", null=True)
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
    revision = tenant_key("triggers.TriggerRevision")
    # Free text for people; empty if there is none.
    description = models.CharField(max_length=2000, blank=True)
    # The URL of the MCP server that runs may use: that of the connection, if there is one. NULL if runs have no tools.
    # If its origin changes and no new headers are given, the secret headers are removed.
    mcp_url = models.CharField(max_length=2048, null=True)
    # The connection whose headers runs send besides `mcp_headers`; NULL for none. Users set it, and deleting the
    # trigger removes it. The database refers to it together with the URL, so that its headers go nowhere else.
    connection = tenant_key("workspaces.Connection", null=True, related_name="triggers")
    # The secret headers for the MCP server: encrypted JSON, or NULL for none. Users write them, a rotation of the data
    # key encrypts them anew, and deleting the trigger removes them.
    mcp_headers = models.BinaryField(null=True)
    # The names of these headers, which are no secret, for people who change one of them; NULL for none.
    mcp_header_names = ArrayField(models.TextField(), null=True)
    # The data key that encrypts `mcp_headers`; NULL if there are no headers. This column is always written together
    # with `mcp_headers`.
    mcp_key = tenant_key("workspaces.DataKey", null=True)
    # The URL to which a message about each ended run is sent; NULL for no messages.
    webhook_url = models.CharField(max_length=2048, null=True)
    # The secret that signs webhooks, encrypted; NULL if they are not signed. Users write it, and a rotation of the data
    # key encrypts it anew. It stays when the trigger is deleted, because pending deliveries still need it.
    webhook_secret = models.BinaryField(null=True)
    # The data key that encrypts `webhook_secret`; NULL if there is no secret. This column is always written together
    # with `webhook_secret`.
    webhook_key = tenant_key("workspaces.DataKey", null=True)
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
    # Whether a run that failed through the fault of infrastructure is retried even if its worker told of tool calls
    # that may have changed something. Users set it.
    retry_after_effects = models.BooleanField(default=False, db_default=False)
    # Of which runs, and when, workers send what the CLI reports, as events of the run. Users set it.
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
    # The user or the API key that last changed the trigger. A rule may forbid them to approve calls of its runs, until
    # another user, who could see the change, has decided about one: then this is NULL. `triggers.runs.waiting` writes
    # it.
    changed_by = models.UUIDField(null=True)
    # All others who have changed the trigger since such a decision, each once; NULL for none.
    also_changed_by = ArrayField(models.UUIDField(), null=True)
    # When a user last changed the trigger, by the database's clock. Making runs does not change it.
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a user deleted the trigger; NULL if nobody did. The row stays, because runs refer to it.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trigger"
        constraints = (
            own_key("trigger", live=lacks("deleted_at")),
            in_environment("trigger"),
            check(
                "trigger_mcp_headers_have_a_key",
                lacks("mcp_headers", "mcp_key") | has("mcp_headers", "mcp_key"),
            ),
            check(
                "trigger_webhook_secret_has_a_key",
                lacks("webhook_secret", "webhook_key") | has("webhook_secret", "webhook_key"),
            ),
            check(
                "trigger_next_run_at_is_true",
                Q(
                    has("schedule") | has("run_once_at"),
                    next_run_at__isnull=False,
                    enabled=True,
                    deleted_at__isnull=True,
                )
                | (
                    lacks("next_run_at")
                    & (Q(enabled=False) | lacks("schedule", "run_once_at") | has("deleted_at"))
                ),
            ),
            # The next due time is never later than the single due time, so that no change can pass over it.
            check(
                "trigger_comes_due_once",
                lacks("run_once_at")
                | lacks("next_run_at")
                | Q(next_run_at__lte=models.F("run_once_at")),
            ),
            *map(_bounded, BOUNDS),
            check("trigger_overlap_policy", Q(overlap_policy__in=("queue", "skip"))),
            check("trigger_retry_mode", Q(retry_mode__in=RetryMode.values)),
            check("trigger_record_events", Q(record_events__in=RecordEvents.values)),
            check("trigger_max_cost_usd", lacks("max_cost_usd") | Q(max_cost_usd__gt=0)),
        )
        indexes = (
            # The query in triggers/schedules/firing.py reads this index in its order.
            index(
                "trigger_due_in_environment",
                ["next_run_at", "environment", "id"],
                where=has("next_run_at"),
            ),
            index("trigger_listed", ["environment", "created_at", "id"], where=lacks("deleted_at")),
            index("trigger_of_worker", ["worker", "created_at", "id"], where=lacks("deleted_at")),
            index("trigger_of_pool", ["pool"], where=has("pool", deleted_at__isnull=True)),
            # The database uses this index when it removes a connection, to make sure that no trigger uses it.
            index(
                "trigger_of_connection", ["connection", "created_at", "id"], where=has("connection")
            ),
            # The database uses this index when it removes a revision, to make sure that it is no trigger's present one.
            index("trigger_of_revision", ["revision", "environment"]),
            # By this index polls find the triggers that have as many held runs as they may.
            index(
                "trigger_limited",
                ["environment"],
                where=has("max_concurrent_runs", deleted_at__isnull=True),
            ),
            # By these two indexes a poll finds the triggers whose runs a worker does not get, because it lacks the
            # feature `approvals` or is not approved.
            index(
                "trigger_with_approvals",
                ["environment", "id"],
                where=has("approvals", deleted_at__isnull=True),
            ),
            index(
                "trigger_with_headers",
                ["environment", "id"],
                where=(has("mcp_headers") | has("connection")) & lacks("deleted_at"),
            ),
        )


# The columns of a revision that users set.
REVISED: Final = ("prompt", "model", "output_schema", "before", "carry")


class TriggerRevision(TenantRow):
    """What a run of a trigger is given to do: the prompt, the model, the output schema, the look before it, and what it
    gets from earlier runs. It never changes, because runs refer to it.
    """

    trigger = tenant_key("triggers.Trigger", related_name="revisions")
    # The text that the worker gives to the AI model, up to 256 KiB. It never changes.
    prompt = models.TextField()
    # The name of the AI model to use; NULL leaves the choice to the worker.
    model = models.CharField(max_length=200, null=True)
    # The JSON Schema 2020-12 of the run's output, as text and unchanged; NULL if a run need not have an output.
    output_schema = JSONAsGivenField(null=True)
    # What a worker looks at before it starts the agent, as LookBody reads it; NULL if runs start without a look.
    before = JSONAsGivenField(null=True)
    # Whether a run gets the output of the trigger's last success that had something new.
    carry = models.CharField(
        max_length=6, choices=Carry.choices, default=Carry.NONE, db_default=Carry.NONE
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # What kind of actor made the revision, as in the audit log: a value of `pipedai.events.ActorType`; NULL if that is
    # not known.
    created_by_type = models.CharField(max_length=8, null=True)
    # The id of the user, API key or staff user who made the revision; NULL for the system, or if that is not known.
    created_by_id = models.UUIDField(null=True)

    class Meta:
        db_table = "trigger_revision"
        constraints = (
            in_environment("trigger_revision"),
            check("trigger_revision_carry", Q(carry__in=Carry.values)),
        )
        indexes = (index("trigger_revision_of_trigger", ["trigger", "created_at", "id"]),)


class TriggerHealth(models.Model):
    """What is known about a trigger's health, in a row of its own, so that ends of runs don't rewrite the trigger.
    `notices.health` and `notices.lateness` write it. They lock it first, so that one judgement follows another.
    """

    # The trigger whose health the row describes. A trigger has one row at most.
    trigger = models.OneToOneField(
        Trigger,
        primary_key=True,
        on_delete=models.PROTECT,
        db_constraint=False,
        related_name="judged",
    )
    # The environment that owns the row.
    environment = environment_key()
    # The time from which outcomes and due times count: when the trigger was last enabled. NULL if it was never
    # disabled, so that all count.
    counts_from = models.DateTimeField(null=True)
    # Whether the trigger has had a final outcome since `counts_from`. Without one the trigger counts as idle.
    has_outcome = models.BooleanField(default=False)
    # How many final outcomes in a row have failed or timed out, up to `alert_after_failures`.
    failures = models.PositiveSmallIntegerField(default=0)
    # Whether the trigger is failing. An incident of the kind `trigger_failing` is open for as long as it is. A trigger
    # does not become failing while its environment is paused.
    is_failing = models.BooleanField(default=False)
    # The due time after which no success came in time; NULL if the trigger is not late. An incident of the kind
    # `trigger_late` is open for as long as it is.
    late_since = models.DateTimeField(null=True)
    # When the scheduler next checks whether the trigger is late; NULL if no check is needed. It is never later than the
    # moment at which the trigger can become late.
    check_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trigger_health"
        constraints = (
            check(
                "trigger_health_failing_has_failures",
                Q(is_failing=False) | Q(has_outcome=True, failures__gte=1),
            ),
        )
        indexes = (
            index("trigger_health_next", ["environment", "check_at"], where=has("check_at")),
        )


class Tick(TenantRow):
    """A due time (tick), and what the scheduler decided about it. A row can stand for all due times that passed while
    no scheduler ran, or that follow each other while the trigger has no worker. `triggers.schedules.firing` writes it.
    """

    trigger = tenant_key("triggers.Trigger", related_name="ticks")
    # The due time. If the row stands for several due times, it is the first of them.
    tick_at = models.DateTimeField()
    # The last due time for which the row stands. It grows while a stretch of due times lasts for which no run is made
    # for the same reason: the trigger has no worker, or the environment is paused.
    last_tick_at = models.DateTimeField()
    # What the scheduler decided about the due time; see `triggers.states.Decision`.
    decision = models.CharField(max_length=17, choices=Decision.choices)
    # The run that was made for the due time; NULL unless the decision is `fired`.
    run = tenant_key("triggers.Run", null=True)
    # The unfinished run because of which no run was made; NULL unless the decision is `skipped_overlap`. If the
    # run is pruned, the database sets NULL.
    blocked_by = tenant_key("triggers.Run", null=True)
    # For how many due times the row stands if the decision is `skipped_missed`, `skipped_no_worker` or
    # `skipped_paused`; 0 for other decisions.
    missed_count = models.PositiveIntegerField(default=0)
    # When the scheduler decided, by the database's clock. For the row of a stretch, it is the decision about the first
    # due time.
    decided_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "tick"
        constraints = (
            # The unique constraint contains the environment, so that the table could be distributed or partitioned by
            # environment.
            unique("tick_one_decision", ["trigger", "tick_at", "environment"]),
            check(
                "tick_fired_has_a_run",
                has("run", decision=Decision.FIRED) | (lacks("run") & ~Q(decision=Decision.FIRED)),
            ),
            check(
                "tick_missed_is_counted",
                Q(
                    decision__in=(Decision.SKIPPED_MISSED, *STRETCHED),
                    missed_count__gte=1,
                    last_tick_at__gte=models.F("tick_at"),
                )
                # Rows with another decision have the count 0. So have old rows with the decision `skipped_no_worker`,
                # because each due time had a row of its own then.
                | (
                    Q(missed_count=0, last_tick_at=models.F("tick_at"))
                    & ~Q(decision__in=(Decision.SKIPPED_MISSED, Decision.SKIPPED_PAUSED))
                ),
            ),
            check("tick_decision", Q(decision__in=Decision.values)),
            check(
                "tick_blocked_was_skipped",
                lacks("blocked_by") | Q(decision=Decision.SKIPPED_OVERLAP),
            ),
        )
        indexes = (
            index("tick_of_run", ["run"], where=has("run")),
            # This index finds a trigger's ticks with one decision, even a rare one. Ticks that made a run are also in
            # it, because they become rare while an unfinished run keeps each due time from making one.
            index("tick_by_decision", ["trigger", "decision", "tick_at", "id"]),
            # Summaries find the due times without a run by this index: those that somebody decided since the last
            # summary, and the stretches that have gone on since then.
            Index(
                "environment",
                Greatest("decided_at", "last_tick_at"),
                name="tick_without_run",
                condition=lacks("run"),
            ),
            # The database uses this index when it removes a run, to empty `blocked_by` of the ticks that name it.
            index("tick_blocked", ["blocked_by", "environment"], where=has("blocked_by")),
        )
