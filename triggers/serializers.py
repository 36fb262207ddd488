"""Checks the bodies of requests about triggers, and renders triggers, runs and ticks for the API."""

import base64
import binascii
import json
import re
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.fields import (
    IdField,
    MoneyField,
    NameField,
    TextField,
    TrueFalseField,
    WholeNumberField,
)
from pipedai.api.outside_urls import MAX_URL, check_url
from pipedai.api.serializers import RowSerializer, StrictBody
from pipedai.outgoing import names_forbidden_address
from triggers.models import MAX_RETRIES, MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, Trigger
from triggers.models.run import duration_ms
from triggers.schedules import cron
from triggers.states import Decision, FaultClass, Source, Status

MAX_PROMPT_BYTES = 256 * 1024
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_HEADERS_BYTES = 8 * 1024
MIN_WEBHOOK_SECRET = 16

# The name of a header is a token (RFC 9110 §5.1). Its value may have visible ASCII characters, and spaces or tabs
# between them.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", re.ASCII)
_RESERVED_HEADERS = frozenset({"host", "content-length", "connection", "transfer-encoding"})


@extend_schema_field({"type": "string", "minLength": 1, "maxLength": MAX_PROMPT_BYTES})
class PromptField(TextField):
    """A prompt of at most MAX_PROMPT_BYTES bytes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Returns the prompt. Raises a field error if it is empty or longer than MAX_PROMPT_BYTES."""
        value = super().to_internal_value(data)
        if len(value.encode()) > MAX_PROMPT_BYTES:
            raise serializers.ValidationError("Must not be longer than 256 KiB.")
        return value


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{_HEADER_NAME.pattern}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{_HEADER_VALUE.pattern}$"},
    },
    component_name="McpHeaders",
)
class McpHeadersField(serializers.Field[Any, Any, Any, Any]):
    """Secret headers for the MCP server: an object of valid header names and text values, of 8 KiB at most."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        """Returns the headers unchanged, if they are valid. An error message does not repeat a bad name, because it may
        be a misplaced secret.
        """
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be an object of header names and values.")
        for name in data:
            _check_header_name(name)
        if len({name.lower() for name in data}) != len(data):
            raise serializers.ValidationError("Two names are alike but for case.")
        errors = {
            name: ["Must be a string that is a valid header value."]
            for name, value in data.items()
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value)
        }
        if errors:
            raise serializers.ValidationError(errors)
        if sum(len(name) + len(value) for name, value in data.items()) > MAX_HEADERS_BYTES:
            raise serializers.ValidationError("Must not be longer than 8 KiB in all.")
        return data

    def to_representation(self, value: Any) -> Any:
        """Raises NotImplementedError, because no answer of the API may contain the headers."""
        raise NotImplementedError


def _check_header_name(name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise serializers.ValidationError("One of the names is not a valid header name.")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith("proxy-"):
        raise serializers.ValidationError(f"{name} may not be set.")


class TriggerBody(StrictBody):
    """The body of POST /environments/:envId/triggers."""

    name = NameField(max_length=200)
    description = TextField(max_length=2000, allow_blank=True, required=False, default="")
    prompt = PromptField()
    model = NameField(max_length=200, allow_null=True, required=False, default=None)
    mcpUrl = TextField(source="mcp_url", max_length=MAX_URL)
    mcpHeaders = McpHeadersField(
        source="mcp_headers", allow_null=True, required=False, default=None
    )
    webhookUrl = TextField(
        source="webhook_url", max_length=MAX_URL, allow_null=True, required=False, default=None
    )
    webhookSecret = TextField(
        source="webhook_secret",
        min_length=MIN_WEBHOOK_SECRET,
        max_length=1024,
        trim_whitespace=False,
        allow_null=True,
        required=False,
        default=None,
    )
    schedule = TextField(max_length=200, allow_null=True, required=False, default=None)
    timezone = TextField(max_length=64, required=False, default="UTC")
    workerId = IdField(source="worker_id", allow_null=True, required=False, default=None)
    enabled = TrueFalseField(required=False, default=True)
    maxRetries = WholeNumberField(
        source="max_retries", min_value=0, max_value=MAX_RETRIES, required=False, default=3
    )
    timeoutSeconds = WholeNumberField(
        source="timeout_seconds",
        min_value=MIN_TIMEOUT_SECONDS,
        max_value=MAX_TIMEOUT_SECONDS,
        required=False,
        default=1800,
    )
    overlapPolicy = serializers.ChoiceField(
        source="overlap_policy",
        choices=Trigger.OverlapPolicy.choices,
        required=False,
        default=Trigger.OverlapPolicy.QUEUE,
    )

    def validate_mcpUrl(self, value: str) -> str:  # noqa: N802 - DRF finds it by the field's name
        """Accepts an http or https URL with a host and without a user name or password."""
        return _checked_url(value)

    def validate_webhookUrl(self, value: str | None) -> str | None:  # noqa: N802
        """Accepts the URLs that `mcpUrl` accepts, unless they name a forbidden address. In production, the URL must be
        https (SPEC §7).
        """
        if not value:
            return value
        _checked_url(value, https_only=settings.PRODUCTION)
        if names_forbidden_address(value):
            raise serializers.ValidationError("Must not name a private or reserved address.")
        return value

    def validate_webhookSecret(self, value: str | None) -> str | None:  # noqa: N802
        """Refuses a secret that begins with `whsec_` unless the rest is base64, since that is decoded for signing
        (Standard Webhooks).
        """
        if value and value.startswith("whsec_"):
            try:
                base64.b64decode(value.removeprefix("whsec_"), validate=True)
            except (binascii.Error, ValueError):
                raise serializers.ValidationError("After whsec_ it must be base64.") from None
        return value

    def validate_timezone(self, value: str) -> str:
        """Accepts a time zone of the IANA database."""
        try:
            cron.check_timezone(value)
        except cron.BadTimezone as error:
            raise serializers.ValidationError(str(error)) from None
        return value

    def validate_schedule(self, value: str | None) -> str | None:
        """Accepts a valid schedule of five crontab(5) fields. It checks them in the zone UTC, because the zone does not
        matter for their form.
        """
        if value is None:
            return None
        try:
            return cron.parse(value, "UTC").expression
        except cron.BadSchedule as error:
            raise serializers.ValidationError(str(error)) from None


def _checked_url(url: str, *, https_only: bool = False) -> str:
    if problem := check_url(url, https_only=https_only):
        raise serializers.ValidationError(problem)
    return url


class RotateBody(StrictBody):
    """The body of POST /triggers/:id/rotate-mcp-token."""

    mcpHeaders = McpHeadersField(source="mcp_headers")

    def validate_mcpHeaders(self, value: dict[str, str]) -> dict[str, str]:  # noqa: N802
        """Refuses an empty object, because this endpoint replaces headers. A PATCH of the trigger removes them."""
        if not value:
            raise serializers.ValidationError("Must hold at least one header.")
        return value


class SchedulePreviewBody(StrictBody):
    """The body of POST /environments/:envId/schedule-preview."""

    schedule = TextField(max_length=200)
    timezone = TextField(max_length=64, required=False, default="UTC")
    count = WholeNumberField(min_value=1, max_value=100, required=False, default=10)

    validate_schedule = TriggerBody.validate_schedule
    validate_timezone = TriggerBody.validate_timezone


class ComingTimeSerializer(serializers.Serializer[Any]):
    """One coming due time of a previewed schedule."""

    at = serializers.DateTimeField()
    note = serializers.CharField(allow_null=True)


class TickSerializer(serializers.Serializer[Any]):
    """A due time of a trigger's schedule (tick), and what was decided about it."""

    tickAt = serializers.DateTimeField(source="tick_at")
    decision = serializers.ChoiceField(choices=Decision.choices)
    runId = serializers.UUIDField(source="run_id", allow_null=True)
    missedCount = serializers.IntegerField(source="missed_count")
    decidedAt = serializers.DateTimeField(source="decided_at")


class LastRunSerializer(RowSerializer):
    """A trigger's newest run, with a few of its fields."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.choices)
    queuedAt = serializers.DateTimeField(source="queued_at")
    endedAt = serializers.DateTimeField(source="ended_at", allow_null=True)


class TriggerSerializer(RowSerializer):
    """A trigger. Instead of its secrets it shows whether there are any."""

    id = serializers.UUIDField()
    environmentId = serializers.UUIDField(source="environment_id")
    workerId = serializers.UUIDField(source="worker_id", allow_null=True)
    name = serializers.CharField()
    description = serializers.CharField()
    prompt = serializers.CharField()
    mcpUrl = serializers.CharField(source="mcp_url")
    hasMcpHeaders = serializers.BooleanField(source="has_mcp_headers")
    model = serializers.CharField(allow_null=True)
    schedule = serializers.CharField(allow_null=True)
    timezone = serializers.CharField()
    nextRunAt = serializers.DateTimeField(source="next_run_at", allow_null=True)
    enabled = serializers.BooleanField()
    maxRetries = serializers.IntegerField(source="max_retries")
    timeoutSeconds = serializers.IntegerField(source="timeout_seconds")
    overlapPolicy = serializers.ChoiceField(
        source="overlap_policy", choices=Trigger.OverlapPolicy.choices
    )
    webhookUrl = serializers.CharField(source="webhook_url", allow_null=True)
    hasWebhookSecret = serializers.BooleanField(source="has_webhook_secret")
    lastRun = LastRunSerializer(source="last_run", allow_null=True)
    createdAt = serializers.DateTimeField(source="created_at")
    updatedAt = serializers.DateTimeField(source="updated_at")


class RunBody(StrictBody):
    """The body of POST /triggers/:id/run."""

    payload = serializers.JSONField(required=False, allow_null=True, default=None)

    def validate_payload(self, value: Any) -> Any:
        """Accepts a payload of up to MAX_PAYLOAD_BYTES, measured as compact JSON in UTF-8."""
        compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if len(compact.encode()) > MAX_PAYLOAD_BYTES:
            raise serializers.ValidationError("Must not be longer than 64 KiB.")
        return value


class RunSerializer(RowSerializer):
    """A run with the fields that lists of runs show."""

    id = serializers.UUIDField()
    triggerId = serializers.UUIDField(source="trigger_id")
    triggerName = serializers.CharField(source="trigger_name")
    environmentId = serializers.UUIDField(source="environment_id")
    workerId = serializers.UUIDField(source="worker_id", allow_null=True)
    status = serializers.ChoiceField(choices=Status.choices)
    source = serializers.ChoiceField(choices=Source.choices)  # type: ignore[assignment]
    attempt = serializers.IntegerField()
    retryOfRunId = serializers.UUIDField(source="retry_of_id", allow_null=True)
    scheduledFor = serializers.DateTimeField(source="scheduled_for", allow_null=True)
    availableAt = serializers.DateTimeField(source="available_at")
    queuedAt = serializers.DateTimeField(source="queued_at")
    claimedAt = serializers.DateTimeField(source="claimed_at", allow_null=True)
    startedAt = serializers.DateTimeField(source="started_at", allow_null=True)
    endedAt = serializers.DateTimeField(source="ended_at", allow_null=True)
    durationMs = serializers.SerializerMethodField()
    exitCode = serializers.IntegerField(source="exit_code", allow_null=True)
    shortMessage = serializers.CharField(source="short_message", allow_null=True)
    errorMessage = serializers.CharField(source="error_message", allow_null=True)
    faultClass = serializers.ChoiceField(
        source="fault_class", allow_null=True, choices=FaultClass.choices
    )
    model = serializers.CharField(allow_null=True)
    inputTokens = serializers.IntegerField(source="input_tokens", allow_null=True)
    outputTokens = serializers.IntegerField(source="output_tokens", allow_null=True)
    cacheReadTokens = serializers.IntegerField(source="cache_read_tokens", allow_null=True)
    cacheCreationTokens = serializers.IntegerField(source="cache_creation_tokens", allow_null=True)
    costUsd = MoneyField(source="cost_usd", allow_null=True)
    numTurns = serializers.IntegerField(source="num_turns", allow_null=True)
    sessionId = serializers.CharField(source="session_id", allow_null=True)
    cancelRequested = serializers.SerializerMethodField()

    def get_durationMs(self, run: dict[str, Any]) -> int | None:  # noqa: N802
        """How many milliseconds the run took, from its start to its end."""
        return duration_ms(run)

    def get_cancelRequested(self, run: dict[str, Any]) -> bool:  # noqa: N802
        """Whether somebody asked to cancel the run."""
        return run["cancel_requested_at"] is not None


@extend_schema_field(
    {
        "type": "object",
        "description": "What a worker reported too late, as it reported it.",
        "required": ["receivedAt", "status"],
        "properties": {
            "receivedAt": {"type": "string", "format": "date-time"},
            "status": {"type": "string"},
        },
        "additionalProperties": True,
    }
)
class LateResultField(serializers.JSONField):
    """A worker's report about a run that came too late to count."""


class RunDetailSerializer(RunSerializer):
    """A single run with all its fields, also those that lists leave out."""

    payload = serializers.JSONField(allow_null=True)
    prompt = serializers.CharField()
    mcpUrl = serializers.CharField(source="mcp_url", allow_null=True)
    lateResult = LateResultField(source="late_result", allow_null=True)
