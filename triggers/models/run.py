"""The tables of runs: the ledger, long texts, results, idempotency keys and events, webhooks about their ends, and the
approvals for which they wait. `run_rules` has what the ledger refuses.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import cycle
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from psycopg.types.json import Json

from pipedai.outgoing.kinds import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.sql import Row
from pipedai.table_rules import check, has, index, lacks, unique
from triggers.models.run_rules import CONSTRAINTS, INDEXES
from triggers.states import (
    ApprovalStatus,
    EndedBy,
    FaultClass,
    Source,
    Status,
)
from workspaces.roles import Role
from workspaces.tenant_columns import TenantRow, environment_key, in_environment, tenant_key


class JSONAsGivenField(models.JSONField):
    """A column of type `json`, which keeps the text: `jsonb` would reorder keys and rewrite numbers."""

    def db_type(self, connection: Any) -> str:
        return "json"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None or hasattr(value, "as_sql"):
            return super().get_db_prep_value(value, connection, prepared)
        return Json(value, dumps=partial(json.dumps, ensure_ascii=False))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value


# The columns of runs that the API reads, for SQL statements and for ORM queries.
RUN_COLUMNS = (
    "id", "environment_id", "trigger_id", "revision_id", "worker_id", "pool_id", "status", "source", "attempt",
    "retry_of_id", "rerun_of_id", "event_id", "chain_depth", "scheduled_for", "available_at", "start_deadline_at",
    "queued_at", "claimed_at", "started_at", "ended_at", "cancel_requested_at", "exit_code", "fault_class",
    "short_message", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens",
    "cost_usd", "num_turns", "session_id", "spells", "active_ms", "looks", "nothing_new", "look_digest", "looked_at",
)  # fmt: skip


def duration_ms(run: Row) -> int | None:
    """Returns for how long workers executed the run, or None if it has not ended or never started. The duration is not
    negative, even if the database's clock was put back meanwhile.
    """
    if run["ended_at"] is None:
        return None
    earlier: int | None = run["active_ms"]
    if run["started_at"] is None:
        return earlier
    last: timedelta = max(run["ended_at"] - run["started_at"], timedelta(0))
    return last // timedelta(milliseconds=1) + (earlier or 0)


PHASES = ("queued", "claimed", "running", "waiting")
MOST_PHASES = 50


def phases(run: Row) -> list[dict[str, Any]]:
    """Returns the run's phases with their beginnings and ends, the last MOST_PHASES of them. It leaves out a phase
    without a duration, such as `claimed` of a run that was started by its claim.
    """
    begun = [run["queued_at"], *(run["spell_times"] or ())]
    if len(begun) % len(PHASES) == 1:
        begun += filter(None, (run["claimed_at"], run["started_at"]))
    told = [
        {"phase": phase, "from": since, "to": until}
        for phase, since, until in zip(cycle(PHASES), begun, [*begun[1:], run["ended_at"]])
        if since != until
    ]
    return told[-MOST_PHASES:]


def tool_calls(run: Row) -> dict[str, int] | None:
    if run["tool_calls_total"] is None:
        return None
    return {part: run[f"tool_calls_{part}"] for part in ("total", "effects", "unknown")}


def requesters_of(
    requested_by: UUID | None, also_requested_by: Sequence[UUID] | None
) -> list[UUID]:
    """Returns all who requested a run, from its two columns."""
    return [*([requested_by] if requested_by else []), *(also_requested_by or ())]


class Run(TenantRow):
    """One attempt at executing a trigger. The table is the ledger of all runs, from which no user can delete. Only the
    statements in `triggers/runs/statements.py` write it. Long texts are in RunText, so that these rows stay small.
    """

    # The trigger that the run executes.
    trigger = tenant_key("triggers.Trigger", related_name="runs")
    # The prompt and model for the run: the trigger's current revision when the run was queued. A retry has the revision
    # of the run that it repeats.
    revision = tenant_key("triggers.TriggerRevision")
    # The worker that claimed the run. Before the claim, the worker that may claim it; if the run also has a pool, this
    # worker comes before the pool's others. NULL if the trigger has no worker. Only queued runs move to another worker.
    worker = tenant_key("workers.Worker", null=True)
    # The pool whose workers may claim the run; NULL if its trigger has none. The trigger's pool when the run was
    # queued; only queued runs move to another pool.
    pool = tenant_key("workers.Pool", null=True)
    # The time from which each worker of the pool may claim the run; before it, only `worker` may. NULL without a pool.
    # It is worked out when the run is queued, and becomes `available_at` when `worker` is disabled or reaches its usage
    # limit.
    pool_from = models.DateTimeField(null=True)
    # The worker that failed the run which this one repeats. It may claim this run only `prefer_seconds` (of the
    # trigger) after `available_at`, so that other workers of the pool come first. NULL if there is none.
    avoided_worker = tenant_key("workers.Worker", null=True)
    # The state of the run; `triggers.states.Status` explains each state. Only the statements of `triggers.runs` change
    # it.
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    # Why the run exists; see `triggers.states.Source`. It is written when the run is queued.
    source = models.CharField(max_length=8, choices=Source.choices)
    # The number of the attempt: 1 for a run that is no retry, otherwise the number of the run that it repeats, plus 1.
    attempt = models.PositiveSmallIntegerField(default=1)
    # How many retries may follow the first attempt, copied from the trigger when that attempt was queued.
    max_retries = models.PositiveSmallIntegerField()
    # How long the run may take, in seconds, copied from the trigger when the first attempt was queued.
    timeout_seconds = models.PositiveIntegerField()
    # The run that this one repeats; NULL for a first attempt.
    retry_of = tenant_key("self", null=True)
    # The run whose payload this run executes again at a user's request; NULL if this is no rerun. A retry of a rerun
    # has NULL, too. If the original is pruned, the database sets NULL.
    rerun_of = tenant_key("self", null=True)
    # The event that queued the run; NULL if none did. A retry and a rerun copy it. The event may have been pruned, so
    # this is no foreign key. Callers below the role operator do not see the payload of a run with an event.
    event_id = models.UUIDField(null=True)
    # How many chains led to the run, one after the other: 0 unless the end of another trigger's run queued it. A retry
    # and a rerun copy it.
    chain_depth = models.PositiveSmallIntegerField(default=0, db_default=0)
    # What events must have in common with the run to join it while it is queued and not yet due: a SHA-256 of the
    # listener and of the value at its path. NULL if no event may join the run.
    coalesce_key = models.BinaryField(max_length=32, null=True)
    # Whether a retry of the run was queued, unless a late result has canceled it. The statements that queue and cancel
    # retries write it.
    retried = models.BooleanField(default=False, db_default=False)
    # The due time of the trigger's schedule for which the run was made; NULL for a run that somebody requested. A retry
    # copies it from the run that it repeats.
    scheduled_for = models.DateTimeField(null=True)
    # The earliest time at which a worker may claim the run: `queued_at`, or for a retry the end of its waiting time. A
    # late result of the repeated run can postpone it.
    available_at = models.DateTimeField(db_default=Now())
    # When the run ends as failed unless a worker has claimed it before; NULL if it may wait without a limit. It is
    # `start_deadline_seconds` of the trigger after `available_at`, and moves with that. A decision about a waiting run
    # sets NULL.
    start_deadline_at = models.DateTimeField(null=True)
    # Until when a queued run waits for `worker` alone, which can continue a session: that of the run that it repeats,
    # or its own if it has `spells`. After this time a retry starts anew on any worker, unless `had_effects` forbids
    # that, and a run with spells ends. For a waiting run it is the time until which somebody has to decide. NULL if the
    # run starts anew.
    resume_until = models.DateTimeField(null=True)
    # Whether tool calls of the session that the run is to continue may have changed something. If so, the run must not
    # start anew. False for a run that continues no session.
    had_effects = models.BooleanField(default=False, db_default=False)
    # Whether the run failed because the usage limit of its worker's account was reached, as the worker reported.
    at_limit = models.BooleanField(default=False, db_default=False)
    # How many of the earlier attempts ended at a usage limit. They don't count against `max_retries`.
    limit_retries = models.PositiveSmallIntegerField(default=0, db_default=0)
    # When the run was queued. A retry is queued when the run that it repeats ends.
    queued_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the worker claimed the run; NULL before that. The value stays when the run has ended or waits for a decision,
    # and becomes NULL when the run is queued again.
    claimed_at = models.DateTimeField(null=True)
    # When the worker reported that it had started the run; NULL before that, and for a run that ended without a start.
    # It becomes NULL with `claimed_at`, and when a waiting run ends, because the time of waiting is none of its
    # duration.
    started_at = models.DateTimeField(null=True)
    # When the run ended; NULL before that. If the worker's late report replaces the end that the server had decided,
    # this becomes the time of that report.
    ended_at = models.DateTimeField(null=True)
    # Who ended the run; see `triggers.states.EndedBy`. NULL while it has not ended.
    ended_by = models.CharField(max_length=20, choices=EndedBy.choices, null=True)
    # Which of its worker's slots the run takes. A worker has as many slots as it may hold runs, numbered from 1 to its
    # `maxConcurrency`. NULL unless the run is claimed or running. A claim takes the lowest free number. The pair
    # (worker, slot) is unique, so the database itself refuses more runs than the worker may hold.
    slot = models.PositiveSmallIntegerField(null=True)
    # Which of its trigger's slots the run takes, numbered from 1 to the trigger's `max_concurrent_runs`. A claim takes
    # the lowest free number. The pair (trigger, trigger_slot) is unique, so the database itself refuses more runs than
    # the trigger may have at once. NULL unless the run is claimed or running and its trigger has such a limit.
    trigger_slot = models.PositiveSmallIntegerField(null=True)
    # A text that the worker chose and sent with its claim. If the worker repeats the claim with the same text, it gets
    # the same answer. NULL if the worker sent no text.
    claim_id = models.CharField(max_length=64, null=True)
    # When the server gives the run up as lost, unless the worker calls before; NULL unless claimed or running. The
    # worker's calls for claim, start and heartbeat move the time ahead.
    lease_expires_at = models.DateTimeField(null=True)
    # When the server ends the run as timed out; NULL unless claimed or running. The claim sets it to `timeout_seconds`
    # and a minute from then, and the start sets it anew in the same way.
    deadline_at = models.DateTimeField(null=True)
    # When a user first asked to cancel the run; NULL if nobody did. A run with this time is not retried.
    cancel_requested_at = models.DateTimeField(null=True)
    # The exit code of the worker's child process, as the worker reported it. NULL if it reported none.
    exit_code = models.BigIntegerField(null=True)
    # Whose fault the run's end was; see `triggers.states.FaultClass`. NULL while it has not ended.
    fault_class = models.CharField(max_length=6, choices=FaultClass.choices, null=True)
    # The worker's summary of how the run ended, cut to 500 characters. NULL if it sent none.
    short_message = models.CharField(max_length=500, null=True)
    # The AI model: that of the trigger's revision, until the worker reports which one it used. NULL if neither names
    # one.
    model = models.CharField(max_length=200, null=True)
    # How many tokens the model read, as the worker reported. NULL if the worker did not report the number. The other
    # counts of tokens and the cost are NULL in the same case.
    input_tokens = models.BigIntegerField(null=True)
    # How many tokens the model wrote, as the worker reported.
    output_tokens = models.BigIntegerField(null=True)
    # How many tokens the model read from its prompt cache, as the worker reported.
    cache_read_tokens = models.BigIntegerField(null=True)
    # How many tokens the model wrote to its prompt cache, as the worker reported.
    cache_creation_tokens = models.BigIntegerField(null=True)
    # What the run cost, in US dollars, as the worker reported.
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    # How many turns the agent's conversation with the AI model took, as the worker reported.
    num_turns = models.IntegerField(null=True)
    # The id of the AI program's session in which the run took place, as the worker reported it.
    session_id = models.CharField(max_length=255, null=True)
    # How many calls of MCP tools the run has made, as its worker reports with heartbeats and at the run's end. Nothing
    # lowers the count. If the worker never reported counts, this column and the next two are NULL.
    tool_calls_total = models.IntegerField(null=True)
    # How many of the run's tool calls may have changed something, according to what the MCP server says about the
    # tools. Nothing lowers the count.
    tool_calls_effects = models.IntegerField(null=True)
    # How many of the run's tool calls got no answer, so that nobody knows whether they changed something.
    tool_calls_unknown = models.IntegerField(null=True)
    # How many times the run has stopped to wait for a person's decision, MAX_SPELLS - 1 at most. Each wait ends a spell
    # of the run. A worker reports numbers for one spell; the run's columns have the sums of all spells.
    spells = models.PositiveSmallIntegerField(default=0, db_default=0)
    # How long the run was executed in its earlier spells, in milliseconds. NULL if it never waited.
    active_ms = models.BigIntegerField(null=True)
    # The three counts of tool calls at the end of the spell before this one, in the order total, effects, unknown. NULL
    # if there was none, or its worker reported no counts.
    earlier_calls = ArrayField(models.IntegerField(), size=3, null=True)
    # When the phases of the earlier spells began, four times for each spell: claimed, running, waiting, and queued
    # again. The last time is missing while the run waits, and if it ended while waiting. NULL if it never waited.
    spell_times = ArrayField(models.DateTimeField(), null=True)
    # The user or the API key that requested the run, by queueing it or by replaying the event that queued it. It is
    # kept because a rule may forbid people to approve what they requested. NULL for a run of a schedule or of another
    # event.
    requested_by = models.UUIDField(null=True)
    # All others who requested the run: users and keys that replayed an event which joined it, and the requesters of the
    # run that it retries or reruns, or whose end queued it. Each is in the list once. NULL for none.
    also_requested_by = ArrayField(models.UUIDField(), null=True)
    # How many calls the run was denied, by the CLI's permissions or by the trigger's rules for approvals, as its worker
    # reported. NULL if the worker did not report it.
    denials_total = models.IntegerField(null=True)
    # Whether somebody watches the run: a person queued it, or asked for its events. Its worker then sends its events as
    # they come, unless the trigger's `record_events` is `never`. A retry copies it.
    watched = models.BooleanField(default=False, db_default=False)
    # The names of the tools of the first denied calls, MAX_DENIED_TOOLS at most.
    denied_tools = ArrayField(models.CharField(max_length=200), null=True)

    # Whether the run's worker looks for something new before it starts the agent, as its revision says. False if the
    # request for the run forced a start. A retry copies it.
    looks = models.BooleanField(default=False, db_default=False)
    # Whether the worker only looks, and reports what it saw as the output. Such a run ends as canceled, so that it is
    # no outcome of its trigger.
    look_only = models.BooleanField(default=False, db_default=False)
    # Whether the worker looked, found nothing new, and so ended the run as succeeded without starting the agent.
    nothing_new = models.BooleanField(default=False, db_default=False)
    # The SHA-256 of what the worker saw when it looked, as 64 hexadecimal digits; NULL if it reported none. A retry
    # that continues the session copies it with `looked_at`, because it does not look again.
    look_digest = models.CharField(max_length=64, null=True)
    # When the worker looked, by its own clock, but between the run's start and its end; NULL with `look_digest`.
    looked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "run"
        constraints = CONSTRAINTS
        indexes = INDEXES


class RunText(models.Model):
    """The long texts of a run, which are rarely read. A run without long texts has no row here."""

    run = models.OneToOneField(
        Run, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="text"
    )
    environment = environment_key()
    # The URL of the MCP server that was last handed to a worker with the run; NULL if the run was never handed out.
    # `triggers.runs.handout` writes it.
    mcp_url = models.CharField(max_length=2048, null=True)
    # The JSON payload of the request for the run, kept as text and unchanged; NULL if there was none. A retry copies
    # it.
    payload = JSONAsGivenField(null=True)
    # Why the run failed: the worker's message, cut to 8,000 characters, or the server's if the worker sent nothing.
    # NULL if there is none.
    error_message = models.CharField(max_length=8000, null=True)
    # The first report that came too late to count, as JSON with the time `receivedAt`; NULL if there was no such
    # report. `triggers.runs.reports` keeps it for people to read.
    late_result = JSONAsGivenField(null=True)
    # Which workers got the trigger's secret headers with this run: the latest receiver first, 20 at most, NULL for
    # none. An entry is a worker's id and the address from which it polled, with a space between them.
    # `triggers.runs.handout` adds an entry when the worker or the address differs from those of the latest entry.
    handed_to = ArrayField(models.TextField(), null=True)

    # The earlier run whose output the worker gets with this one (`carry`), chosen at the first hand-out; NULL if there
    # was none. A retry copies it. That run may have been pruned, so this is no foreign key.
    previous_id = models.UUIDField(null=True)

    class Meta:
        db_table = "run_text"


class RunResult(models.Model):
    """The output and the listed tool calls of a run. A run with neither has no row here."""

    run = models.OneToOneField(
        Run, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="result"
    )
    environment = environment_key()
    # The run's output, as text and unchanged, up to 64 KiB. NULL if the run has no output; an output that is the JSON
    # value `null` is stored as such.
    output = JSONAsGivenField(null=True)
    # The first calls of MCP tools, 500 at most, as a JSON list in the form in which the API shows them; NULL if the
    # worker listed none.
    tool_calls = JSONAsGivenField(null=True)

    class Meta:
        db_table = "run_result"


class IdempotencyKey(models.Model):
    """An `Idempotency-Key` that one caller sent for one trigger, with the run that the request made.

    `triggers.runs.queueing` writes the row before the run, so that only one of two equal requests makes a run.
    """

    # The caller is a part of the primary key, so that two callers may use the same key independently.
    pk = models.CompositePrimaryKey("trigger_id", "caller_id", "key")
    environment = environment_key()
    trigger = tenant_key("triggers.Trigger")
    # The id of the user or API key that sent the request. Callers that choose the same key don't get each other's runs.
    caller_id = models.UUIDField()
    key = models.CharField(max_length=255)
    # The SHA-256 of the request's body as canonical JSON. A request with the same key and another body is refused.
    body_digest = models.BinaryField(max_length=32)
    # The run that the first request with the key made. Later requests with the key return it.
    run = tenant_key("triggers.Run")
    # When the key was first sent, by the database's clock. After 24 hours the key counts as new, and the next request
    # with it takes the row over.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "idempotency_key"
        indexes = (
            index("idempotency_key_old", ["created_at"]),
            index("idempotency_key_of_run", ["run"]),
        )


# A run keeps at most so many events. After the last of them comes one event more, of the type `truncated`.
MAX_RUN_EVENTS = 20_000


class RunEventLog(models.Model):
    """Counts a run's stored events. Calls that store some lock the row. The first of them, or a stream, makes it."""

    run = models.OneToOneField(
        Run, primary_key=True, on_delete=models.PROTECT, db_constraint=False, related_name="events"
    )
    environment = environment_key()
    # The number (`seq`) that the next event of the worker must have. The first event has the number 1.
    next_seq = models.BigIntegerField(default=1, db_default=1)
    # How many events are stored. They have the numbers from 1 to this one. If `is_truncated`, the last one says that
    # the rest is missing.
    stored = models.PositiveIntegerField(default=0, db_default=0)
    # How many bytes the stored events have, as JSON in UTF-8.
    bytes = models.PositiveIntegerField(default=0, db_default=0)
    # Whether a limit was reached. Further events are then counted in `next_seq` and not stored.
    is_truncated = models.BooleanField(default=False, db_default=False)
    # When the first and the latest events were stored, by the database's clock; NULL before. A reader searches only the
    # partitions of the days between.
    first_at = models.DateTimeField(null=True)
    last_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "run_event_log"
        constraints = (
            check(
                "run_event_log_counts", Q(stored__lt=F("next_seq"), stored__lte=MAX_RUN_EVENTS + 1)
            ),
        )


class RunEventBatch(models.Model):
    """The events of a run that one call stored. The table is partitioned by the day (UTC) of `stored_at`, so its real
    primary key is `(run_id, last_seq, stored_at)`. It has no foreign keys, because each would cost a check at every
    insert.
    """

    pk = models.CompositePrimaryKey("run_id", "last_seq", "stored_at")
    environment_id = models.UUIDField()
    run_id = models.UUIDField()
    # The numbers of the first and the last event. The numbers of all events between them follow each other.
    first_seq = models.IntegerField()
    last_seq = models.IntegerField()
    stored_at = models.DateTimeField()
    # How many bytes the events have, as JSON in UTF-8.
    bytes = models.IntegerField()
    # The events by number, each as the JSON text in which the API answers it.
    events = ArrayField(models.TextField())

    class Meta:
        db_table = "run_event_batch"
        managed = False


class RunEventDay(models.Model):
    """How many bytes of run events an environment has stored on one day."""

    pk = models.CompositePrimaryKey("environment_id", "day")
    # The environment whose runs the events belong to.
    environment = environment_key()
    # The day (UTC) on which the events were stored, by the database's clock.
    day = models.DateField()
    # How many bytes the events have, as JSON in UTF-8.
    bytes = models.BigIntegerField()

    class Meta:
        db_table = "run_event_day"


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


_DECIDED = (ApprovalStatus.APPROVED, ApprovalStatus.REJECTED)


class Approval(TenantRow):
    """A call of a tool about which a run asked a person, with the decision. `triggers.runs.waiting` and
    `triggers.approvals` write it, after they have changed or locked the run.
    """

    trigger = tenant_key("triggers.Trigger")
    # The run that asked. It waits while the status is `pending`.
    run = tenant_key("triggers.Run", related_name="approvals")
    status = models.CharField(
        max_length=9, choices=ApprovalStatus.choices, default=ApprovalStatus.PENDING
    )
    # The name of the tool, as its MCP server has it.
    tool = models.CharField(max_length=200)
    # The arguments of the call as its worker showed them, without secrets, as unchanged text.
    arguments = JSONAsGivenField()
    # The SHA-256 of the arguments with their secrets in the form of RFC 8785, and that of the tool's schema, as 64
    # hexadecimal digits. The worker's gateway recognises the call by them.
    arguments_hash = models.CharField(max_length=64)
    tool_schema_hash = models.CharField(max_length=64)
    # How many calls the run had made before it asked; NULL if its worker counted none.
    calls_before = models.IntegerField(null=True)
    # The rules for the run when it asked, as ApprovalRulesField reads them: at least one names the tool. A worker gets
    # them with the decision, even if the trigger has changed. NULL if an older release asked, which did not keep them.
    rules = JSONAsGivenField(null=True)
    # Whether the run had the CLI's own tools for shells, the web and files when it asked; NULL as for `rules`.
    allow_host_tools = models.BooleanField(null=True)
    # The lowest role that may decide: the strictest of the rules about this tool.
    role = models.CharField(max_length=8, choices=Role.choices)
    # Whether a rule about the tool says `notRequester`.
    not_requester = models.BooleanField(default=False, db_default=False)
    # The users who may not decide, because they, or an API key that they made, requested the run, had changed the
    # trigger when the run asked, or have changed it since. Empty without `not_requester`.
    barred = ArrayField(models.UUIDField(), default=list)
    # When the run asked, by the database's clock.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Until when somebody can decide.
    expires_at = models.DateTimeField()
    # When a scheduler reminds people of the question; NULL once it has.
    remind_at = models.DateTimeField(null=True)
    # When somebody decided, the time was over, or the run ended, whichever came first; NULL while `pending`.
    closed_at = models.DateTimeField(null=True)
    # The user who decided; NULL if nobody did.
    decided_by = models.UUIDField(null=True)
    # What the user wrote about the decision; NULL for nothing. The agent reads the reason of a rejection.
    reason = models.CharField(max_length=1000, null=True)
    # When the worker's gateway was allowed to forward the call, once; NULL before.
    spent_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "approval"
        constraints = (
            in_environment("approval"),
            unique(
                "approval_one_pending",
                ["run", "environment"],
                where=Q(status=ApprovalStatus.PENDING),
            ),
            check(
                "approval_closed",
                lacks("closed_at", status=ApprovalStatus.PENDING)
                | (
                    has("closed_at", status__in=ApprovalStatus.values)
                    & ~Q(status=ApprovalStatus.PENDING)
                ),
            ),
            check(
                "approval_decided_by_somebody",
                has("decided_by", status__in=_DECIDED)
                | (lacks("decided_by", "reason") & ~Q(status__in=_DECIDED)),
            ),
            check(
                "approval_spent_was_approved", lacks("spent_at") | Q(status=ApprovalStatus.APPROVED)
            ),
            check("approval_role", Q(role__in=(Role.OPERATOR, Role.ADMIN, Role.OWNER))),
        )
        indexes = (
            index("approval_listed", ["environment", "created_at", "id"]),
            index("approval_of_status", ["environment", "status", "created_at", "id"]),
            index(
                "approval_remind_next",
                ["environment", "remind_at"],
                where=has("remind_at", status=ApprovalStatus.PENDING),
            ),
            # By this index the hand-out finds a run's last approval, and the database the approvals of a removed run.
            index("approval_of_run", ["run", "created_at"]),
        )

    def __str__(self) -> str:
        return self.tool
