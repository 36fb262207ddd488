"""Checks the bodies of requests about triggers, and renders triggers for the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, CharField, F, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import JSONObject
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.bulk import BulkBody
from pipedai.api.fields import (
    AmountField,
    IdField,
    NameField,
    SigningSecretField,
    TargetUrlField,
    TextField,
    TimezoneField,
    TrueFalseField,
    UrlField,
    WholeNumberField,
)
from pipedai.api.serializers import RowSerializer, StrictBody, sources_of
from pipedai.sql import database_now, fetch_by_ids
from triggers.approvals.rules import ApprovalRulesField
from triggers.events.clauses import LookBody
from triggers.events.listening import OF_SOURCE, OF_TRIGGER, Entry, EntryBody, OnField, entry_of
from triggers.models import BOUNDS, REVISED, Listener, Run, Tick, Trigger, TriggerRevision
from triggers.schedules import cron
from triggers.states import Carry, Health, RecordEvents, RetryMode, Status
from workspaces.connections.serializers import McpHeadersField
from workspaces.serializers import FileBody

MAX_PROMPT_BYTES = 256 * 1024
# How far ahead `runOnceAt` may lie.
_MOST_AHEAD = timedelta(days=366)


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": MAX_PROMPT_BYTES})
class PromptField(TextField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if len(value.encode()) > MAX_PROMPT_BYTES:
            raise serializers.ValidationError("Must not be longer than 256 KiB.")
        return value


@extend_schema_field({"type": "object", "additionalProperties": True})
class OutputSchemaField(serializers.JSONField):
    """The JSON Schema of the output that a trigger asks its runs for."""


def _number(column: str, **kwargs: Any) -> WholeNumberField:
    least, most = BOUNDS[column]
    return WholeNumberField(min_value=least, max_value=most, **kwargs)


class TriggerBody(FileBody):
    description = TextField(max_length=2000, allow_blank=True, default="")
    prompt = PromptField()
    model = NameField(max_length=200, allow_null=True, default=None)
    mcpUrl = UrlField(required=False, allow_null=True)
    connectionId = IdField(allow_null=True, default=None)
    mcpHeaders = McpHeadersField(allow_null=True, default=None)
    webhookUrl = TargetUrlField(
        label="Webhook",
        help_text="A URL that is told of the end of each run.",
        allow_null=True,
        default=None,
    )
    webhookSecret = SigningSecretField(label="Secret that signs it", allow_null=True, default=None)
    schedule = TextField(max_length=200, allow_null=True, default=None)
    timezone = TimezoneField(default="UTC")
    runOnceAt = serializers.DateTimeField(allow_null=True, default=None)
    workerId = IdField(allow_null=True, default=None)
    poolId = IdField(allow_null=True, default=None)
    preferSeconds = _number("prefer_seconds", default=60)
    startDeadlineSeconds = _number("start_deadline_seconds", allow_null=True, default=None)
    maxConcurrentRuns = _number("max_concurrent_runs", allow_null=True, default=None)
    enabled = TrueFalseField(default=True)
    maxRetries = _number("max_retries", default=3)
    timeoutSeconds = _number("timeout_seconds", default=1800)
    overlapPolicy = serializers.ChoiceField(
        choices=Trigger.OverlapPolicy.choices, default=Trigger.OverlapPolicy.QUEUE
    )
    retryMode = serializers.ChoiceField(choices=RetryMode.choices, default=RetryMode.RESTART)
    retryAfterEffects = TrueFalseField(default=False)
    recordEvents = serializers.ChoiceField(
        choices=RecordEvents.choices, default=RecordEvents.FAILURES
    )
    alertAfterFailures = _number("alert_after_failures", allow_null=True, default=1)
    successDeadlineSeconds = _number("success_deadline_seconds", allow_null=True, default=None)
    maxCostUsd = AmountField(above_zero=True, allow_null=True, default=None)
    outputSchema = OutputSchemaField(allow_null=True, default=None)
    on = OnField(default=[])
    approvals = ApprovalRulesField(allow_null=True, default=None)
    allowHostTools = TrueFalseField(default=False)
    failOnDenied = TrueFalseField(default=False)
    before = LookBody(allow_null=True, default=None)
    carry = serializers.ChoiceField(choices=Carry.choices, default=Carry.NONE)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Gives a new trigger no tools if it has neither `mcpUrl` nor a connection, whose URL it would take."""
        if not self.partial and attrs["connection_id"] is None:
            attrs.setdefault("mcp_url", None)
        return attrs

    def validate_runOnceAt(self, value: datetime | None) -> datetime | None:  # noqa: N802
        """Returns the next whole minute, as all due times are, of a time in the next 366 days."""
        if value is None:
            return None
        now = database_now()
        if not now < value <= now + _MOST_AHEAD:
            raise serializers.ValidationError(
                f"Must be in the future, and at most {_MOST_AHEAD.days} days ahead."
            )
        early = value.astimezone(UTC).replace(second=0, microsecond=0)
        return early if early == value else early + timedelta(minutes=1)

    def validate_outputSchema(self, value: Any) -> Any:  # noqa: N802
        if value is None:
            return None
        # The libraries for JSON Schema are a tenth of all that a process would import at its start.
        from triggers.output_schemas import BadOutputSchema, check_output_schema

        try:
            check_output_schema(value)
        except BadOutputSchema as error:
            raise serializers.ValidationError(str(error)) from None
        return value

    def validate_schedule(self, value: str | None) -> str | None:
        """Accepts five valid crontab(5) fields. The zone does not matter for their form, so it is UTC here."""
        if value is None:
            return None
        try:
            return cron.parse(value, "UTC").expression
        except cron.BadSchedule as error:
            raise serializers.ValidationError(str(error)) from None


class TriggerChange(TriggerBody):
    """What a PATCH takes. Merged headers join those that are there, but one whose value is null takes its one away."""

    mcpHeaders = McpHeadersField(allow_null=True, takes_away=True, default=None)
    mcpHeadersMode = serializers.ChoiceField(choices=["replace", "merge"], default="replace")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        headers = attrs.get("mcp_headers") or {}
        if None in headers.values() and attrs.get("mcp_headers_mode") != "merge":
            problem = "A value may be null only with mcpHeadersMode merge."
            raise serializers.ValidationError({"mcpHeaders": [problem]})
        return super().validate(attrs)


class BulkTriggersBody(BulkBody):
    action = serializers.ChoiceField(choices=["pause", "resume", "delete"])


class RotateBody(StrictBody):
    mcpHeaders = McpHeadersField(allow_empty=False)


class LastRunSerializer(RowSerializer):
    """A trigger's newest run, with a few of its fields."""

    of = Run
    shows = "id status nothingNew queuedAt endedAt"


class RecentRunSerializer(RowSerializer):
    """How one of a trigger's last runs ended."""

    of = Run
    shows = "id status nothingNew durationMs endedAt"
    durationMs = serializers.IntegerField(allow_null=True)
    endedAt = serializers.DateTimeField()


class TriggerSerializer(RowSerializer):
    """A trigger. Instead of its secrets it shows whether there are any."""

    of = (Trigger, TriggerRevision)
    shows = (
        "id key managedBy environmentId workerId poolId preferSeconds startDeadlineSeconds"
        " maxConcurrentRuns name description prompt mcpUrl connectionId hasMcpHeaders"
        " mcpHeaderNames model schedule timezone runOnceAt on nextRunAt enabled maxRetries"
        " timeoutSeconds overlapPolicy retryMode retryAfterEffects recordEvents alertAfterFailures"
        " successDeadlineSeconds maxCostUsd health outputSchema approvals allowHostTools"
        " failOnDenied before carry webhookUrl hasWebhookSecret lastDueAt lastRun lastSuccessAt"
        " createdAt updatedAt"
    )
    hasMcpHeaders = serializers.BooleanField()
    on = serializers.SerializerMethodField()
    health = serializers.ChoiceField(choices=Health.choices)
    outputSchema = OutputSchemaField(allow_null=True)
    approvals = ApprovalRulesField(allow_null=True)
    before = LookBody(allow_null=True)
    hasWebhookSecret = serializers.BooleanField()
    lastDueAt = serializers.DateTimeField(allow_null=True)
    lastRun = LastRunSerializer(allow_null=True)
    lastSuccessAt = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(EntryBody(many=True))
    def get_on(self, trigger: dict[str, Any]) -> list[Entry]:
        return [entry_of(row) for row in trigger["listens_to"]]


class ListedTriggerSerializer(TriggerSerializer):
    """A trigger of a list. `recent` is there if it was asked for with `include=recent`."""

    recent = RecentRunSerializer(many=True, required=False)


# The columns of triggers that the serializer shows. Only the id of the last run is read here, because a second query
# reads all last runs of a page.
_TRIGGER_COLUMNS = sorted(
    sources_of(TriggerSerializer) - {"last_run"} | {"last_run_id", "listens_to"}
)
_LAST_RUN_COLUMNS = sorted(sources_of(LastRunSerializer))


# The SQL expression for the health of a trigger, from its row in `trigger_health`.
HEALTH = Case(
    When(enabled=False, then=Value(Health.IDLE.value)),
    When(judged__is_failing=True, then=Value(Health.FAILING.value)),
    When(judged__late_since__isnull=False, then=Value(Health.LATE.value)),
    When(environment__paused_at__isnull=False, then=Value(Health.PAUSED.value)),
    When(judged__has_outcome=True, then=Value(Health.OK.value)),
    default=Value(Health.IDLE.value),
    output_field=CharField(),
)


_LISTENER_COLUMNS = ("source_id", "upstream_id", *OF_SOURCE, *OF_TRIGGER)
# The SQL expression for what a trigger listens to: a list of objects for `entry_of`.
LISTENS_TO = ArraySubquery(
    Listener.objects.filter(trigger_id=OuterRef("id"))
    .order_by("position")
    .values(row=JSONObject(**{column: column for column in _LISTENER_COLUMNS}))
)


def triggers() -> QuerySet[Trigger, dict[str, Any]]:
    newest = Run.objects.filter(trigger_id=OuterRef("id")).order_by("-queued_at", "-id")
    succeeded = Run.objects.filter(
        trigger_id=OuterRef("id"), status=Status.SUCCEEDED, ended_at__isnull=False
    ).order_by("-ended_at")
    ticks = Tick.objects.filter(trigger_id=OuterRef("id")).order_by("-tick_at")
    rows: QuerySet[Trigger, dict[str, Any]] = (
        Trigger.objects.filter(deleted_at__isnull=True)
        .annotate(
            **{name: F(f"revision__{name}") for name in REVISED},
            has_mcp_headers=Q(mcp_headers__isnull=False) | Q(connection__isnull=False),
            has_webhook_secret=Q(webhook_secret__isnull=False),
            health=HEALTH,
            listens_to=LISTENS_TO,
            last_due_at=Subquery(ticks.values("last_tick_at")[:1]),
            last_success_at=Subquery(succeeded.values("ended_at")[:1]),
            last_run_id=Subquery(newest.values("id")[:1]),
        )
        .values(*_TRIGGER_COLUMNS)
    )
    return rows


def with_last_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds `last_run` to each row of `triggers()`: the trigger's newest run as a dict, or None. It takes one query."""
    ids = [(row["environment_id"], row["last_run_id"]) for row in rows if row["last_run_id"]]
    runs = {run["id"]: run for run in fetch_by_ids("run", _LAST_RUN_COLUMNS, ids)}
    return [{**row, "last_run": runs.get(row["last_run_id"])} for row in rows]
