"""Reads the bodies of the worker protocol, and renders what it answers."""

from dataclasses import asdict
from functools import cache
from typing import Any

from rest_framework import serializers

from pipedai.api.fields import (
    IdField,
    MoneyField,
    NameField,
    TextField,
    TrueFalseField,
    WholeNumberField,
)
from pipedai.api.parsers import TOO_DEEP
from pipedai.api.renderers import compact_json, iso_time
from pipedai.api.serializers import Body, RowSerializer
from triggers.approval_rules import DECISIONS, WHEN, ToolsField, rules_in_force
from triggers.runs.handout import HandedOut
from triggers.runs.outcome import (
    MAX_ERROR_MESSAGE,
    MAX_OUTPUT_BYTES,
    MAX_SHORT_MESSAGE,
    Outcome,
    settled_fault,
)
from triggers.runs.serializers import RunSerializer
from triggers.serializers import OutputSchemaField
from triggers.states import REPORTED, FaultClass, RecordEvents, RetryMode, Status
from workers.models import MAX_CONCURRENCY, Worker
from workers.protocol.fields import (
    ClaimIdField,
    CutTextField,
    DenialsField,
    FeaturesField,
    OutputField,
    QuestionField,
    ReportedNumberField,
    RetryAfterField,
    ToolCallListField,
    ToolCallsField,
    UsageLimitField,
)
from workers.serializers import AccountIdField, AuthModeField

# The largest numbers that PostgreSQL's columns of 4 and 8 bytes can hold.
_INT4, _INT8 = 2**31 - 1, 2**63 - 1
# The most seconds for which a worker may wait for a run: many proxies end a request that is idle for a minute.
MAX_WAIT_SECONDS = 30
# The most runs of which a worker may ask at once whether they have ended.
MAX_WAITING_RUNS = 100


class RegisterBody(Body):
    """The body of POST /workers/register. The `wrk_` token may instead come in the Authorization header."""

    hostname = NameField(max_length=255)
    os = NameField(max_length=255)
    version = NameField(max_length=64)
    label = NameField(max_length=255, required=False, allow_null=True)  # type: ignore[assignment]
    authMode = AuthModeField(choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX)
    maxConcurrency = WholeNumberField(min_value=1, max_value=MAX_CONCURRENCY, default=1)
    accountId = AccountIdField()


class RegistrationBody(RegisterBody):
    """Is for the OpenAPI schema only. The view takes the token, from header or body, before it reads fields."""

    token = TextField(required=False)


class ClaimBody(Body):
    claimId = ClaimIdField()
    start = TrueFalseField(default=False)
    features = FeaturesField()


class ClaimNextBody(Body):
    claimId = TextField(max_length=64, trim_whitespace=False)
    start = TrueFalseField(default=False)
    wait = WholeNumberField(min_value=0, max_value=MAX_WAIT_SECONDS, default=0)
    features = FeaturesField()
    waitingRuns = serializers.ListField(
        source="waiting_runs",
        child=IdField(),
        max_length=MAX_WAITING_RUNS,
        allow_null=True,
        default=None,
    )


def _tokens() -> ReportedNumberField:
    return ReportedNumberField(least=0, most=_INT8)


class CredentialsBody(Body):
    refusedExpiresAt = serializers.DateTimeField(
        source="refused_expires_at", required=False, allow_null=True
    )


class HeartbeatBody(Body):
    toolCalls = ToolCallsField(required=False, allow_null=True)
    sessionId = CutTextField(cut_to=255, required=False, allow_null=True)


class CompleteBody(Body):
    status = serializers.ChoiceField(choices=[status.value for status in REPORTED])
    # The range is wider than 32 bits with a sign, because Windows has unsigned exit codes such as 3221225786.
    exitCode = ReportedNumberField(least=-_INT8, most=_INT8)
    shortMessage = CutTextField(cut_to=MAX_SHORT_MESSAGE, required=False, allow_null=True)
    errorMessage = CutTextField(cut_to=MAX_ERROR_MESSAGE, required=False, allow_null=True)
    faultClass = serializers.ChoiceField(
        choices=FaultClass.choices, required=False, allow_null=True
    )
    inputTokens = _tokens()
    outputTokens = _tokens()
    cacheReadTokens = _tokens()
    cacheCreationTokens = _tokens()
    costUsd = MoneyField(required=False, allow_null=True)
    numTurns = ReportedNumberField(least=0, most=_INT4)
    sessionId = CutTextField(cut_to=255, required=False, allow_null=True)
    model = CutTextField(cut_to=200, required=False, allow_null=True)
    retryAfterSeconds = RetryAfterField(required=False, allow_null=True)
    usageLimit = UsageLimitField(required=False, allow_null=True)
    toolCalls = ToolCallsField(required=False, allow_null=True)
    toolCallList = ToolCallListField(required=False)
    # A JSON null is an output. If the worker reported no output, the validated values have no `output`.
    output = OutputField(required=False, allow_null=True)
    # What the run waits for, with the status `waiting`.
    approval = QuestionField(required=False, allow_null=True)
    # The `claimId` of the spell that ends so, with the status `waiting`.
    claimId = ClaimIdField()
    denials = DenialsField(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuses a report that a run waits if nobody could decide about it, or nobody could continue it."""
        if attrs["status"] != Status.WAITING:
            attrs["approval"] = None
            return attrs
        missing = [
            name
            for name, value in (("approval", "approval"), ("sessionId", "session_id"))
            if not attrs.get(value)
        ]
        if missing:
            raise serializers.ValidationError(
                {name: ["This field is required."] for name in missing}
            )
        return attrs

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and data.get("toolCallList", ()) is None:
            data = {name: value for name, value in data.items() if name != "toolCallList"}
        return super().to_internal_value(data)


def outcome_of(values: dict[str, Any]) -> Outcome:
    fault = settled_fault(values["status"], values.get("fault_class"))
    return Outcome(**{**values, **_output_of(values), "fault_class": fault})


def _output_of(values: dict[str, Any]) -> dict[str, str | None]:
    """Returns `output` and `unfit_output` for an Outcome: the output as JSON text, or why it is not kept."""
    if "output" not in values:
        return {}
    if values["output"] is TOO_DEEP:
        return {"output": None, "unfit_output": "The output is nested more than 63 levels deep."}
    text = compact_json(values["output"])
    if len(text.encode()) > MAX_OUTPUT_BYTES:
        return {"output": None, "unfit_output": "The output is longer than 64 KiB."}
    return {"output": text}


def as_reported(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a report in the form in which a late result is stored, by the API's names. The list of tool calls and too
    long an output are left out, because it is a part of the run's answer.
    """
    names = _reported_names()
    reported = {names[attribute]: value for attribute, value in values.items()}
    for name in ("toolCallList", "approval", "claimId"):
        reported.pop(name, None)
    if _output_of(values).get("unfit_output"):
        del reported["output"]
    if (calls := values.get("tool_calls")) is not None:
        reported["toolCalls"] = asdict(calls)
    if (denials := values.get("denials")) is not None:
        reported["denials"] = asdict(denials)
    if (limit := values.get("usage_limit")) is not None:
        reported["usageLimit"] = {"resetsAt": iso_time(limit.resets_at), "kind": limit.kind}
    return reported


@cache
def _reported_names() -> dict[str, str]:
    # The result is cached, because making a serializer copies all of its fields and takes long.
    return {str(field.source): name for name, field in CompleteBody().fields.items()}


class ClaimedRunSerializer(RunSerializer):
    """A run as `claim` answers it. `maxCostUsd` is what the claim reserved: it counts, and not what a poll told."""

    maxCostUsd = MoneyField(allow_null=True)


class CompletedRunSerializer(RunSerializer):
    """A run as `complete` answers it. `resumeUntil` says how long the worker must keep the run's session, and null that
    the session is not needed any more.
    """

    resumeUntil = serializers.DateTimeField(allow_null=True)


class HandedOutRuleSerializer(RowSerializer):
    """A rule as its worker gets it: which calls a person has to approve."""

    tools = ToolsField()
    when = serializers.ChoiceField(choices=WHEN)


class HandedOutDecisionSerializer(RowSerializer):
    """What somebody decided about the call for which the run last waited."""

    keeps_names = True

    approvalId = serializers.UUIDField()
    decision = serializers.ChoiceField(choices=DECISIONS)
    tool = serializers.CharField()
    argumentsHash = serializers.CharField()
    toolSchemaHash = serializers.CharField()
    reason = serializers.CharField(allow_null=True)


class HandedOutApprovalsSerializer(RowSerializer):
    """How a run is to be executed whose trigger has rules for approvals, or that has waited by such rules."""

    rules = HandedOutRuleSerializer(many=True)
    allowHostTools = serializers.BooleanField()
    decision = HandedOutDecisionSerializer(allow_null=True)


class HandedOutRunSerializer(RowSerializer):
    """A run as a poll hands it to its worker. Only here, and in the answers to `claim-next` and `credentials`, does the
    API show MCP headers in plaintext.
    """

    id = serializers.UUIDField()
    triggerId = serializers.UUIDField()
    triggerName = serializers.CharField()
    prompt = serializers.CharField()
    mcpUrl = serializers.CharField()
    mcpHeaders = serializers.DictField(child=serializers.CharField())
    headersExpireAt = serializers.DateTimeField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    timeoutSeconds = serializers.IntegerField()
    payload = serializers.JSONField(allow_null=True)
    outputSchema = OutputSchemaField(allow_null=True)
    retryAfterEffects = serializers.BooleanField()
    retryMode = serializers.ChoiceField(choices=RetryMode.choices)
    resumeSessionId = serializers.CharField(allow_null=True)
    resumeUntil = serializers.DateTimeField(allow_null=True)
    maxCostUsd = MoneyField(allow_null=True)
    recordEvents = serializers.ChoiceField(choices=RecordEvents.choices)
    attempt = serializers.IntegerField()
    queuedAt = serializers.DateTimeField()

    approvals = HandedOutApprovalsSerializer(required=False)

    def to_representation(self, instance: HandedOut) -> dict[str, Any]:  # type: ignore[override]
        """Leaves `approvals` out for a run without rules, unless it has waited."""
        row = {**instance.row, "mcp_headers": instance.mcp_headers, "approvals": None}
        rules = rules_in_force(row["kept_rules"], row["present_rules"])
        if rules or row["decision"] is not None:
            row["approvals"] = {**row, "rules": rules}
        shown: dict[str, Any] = super().to_representation(row)
        if shown["approvals"] is None:
            del shown["approvals"]
        return shown


class NextRunSerializer(HandedOutRunSerializer, ClaimedRunSerializer):
    """A run as `claim-next` answers it: all that a poll and a claim say of it."""
