"""Reads the bodies of the worker protocol, and renders its answers. Most fields of a report accept a wrong value,
because refusing it would lose the whole report.
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, ClassVar, TypeGuard

from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from pipedai.api.declared import Declaring
from pipedai.api.fields import (
    IdField,
    MoneyField,
    NameField,
    TextField,
    TrueFalseField,
    WholeNumberField,
    is_finite_number,
)
from pipedai.api.parsers import TOO_DEEP
from pipedai.api.renderers import compact_json, iso_time
from pipedai.api.schema.operation import Schema
from pipedai.api.serializers import Body, RowSerializer
from triggers.approvals.rules import (
    DECISIONS,
    MAX_ARGUMENTS_BYTES,
    MAX_TOOL_NAME,
    WHEN,
    ToolsField,
    rules_in_force,
)
from triggers.events.clauses import ArgumentsField, RunIfField
from triggers.models import Run, RunText, Trigger, TriggerRevision
from triggers.runs.conditions import FEATURES
from triggers.runs.ending import MAX_RETRY_AFTER_SECONDS
from triggers.runs.handout import MAX_CARRIED_BYTES, HandedOut
from triggers.runs.outcome import (
    CALL_EFFECTS,
    CALL_OUTCOMES,
    MAX_DENIED_TOOLS,
    MAX_ERROR_MESSAGE,
    MAX_LIMIT_KIND,
    MAX_LISTED_CALLS,
    MAX_OUTPUT_BYTES,
    MAX_SHORT_MESSAGE,
    UNREADABLE,
    Denials,
    Look,
    Outcome,
    Question,
    ToolCalls,
    UsageLimit,
    settled_fault,
)
from triggers.runs.serializers import RunSerializer
from triggers.serializers import OutputSchemaField
from triggers.states import REPORTED, FaultClass, Status
from workers.models import MAX_CONCURRENCY, Worker
from workers.serializers import AccountIdField, AuthModeField

# The longest time that a poll may wait, in seconds, because many proxies end a request that is idle for a minute.
MAX_WAIT_SECONDS = 30
# The largest number of runs that a worker may list in a call to ask which of them have ended.
MAX_WAITING_RUNS = 100
# The largest numbers that PostgreSQL's columns of 4 and 8 bytes can hold.
_INT4, _INT8 = 2**31 - 1, 2**63 - 1
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# A time in the form of the API, as most workers send it. It is returned unchanged, because formatting it takes ten
# times as long as parsing it.
_IN_OUR_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": _INT4}

# The most characters in the id of a tool call.
MAX_CALL_ID = 200

# The largest number of problems of a worker, the longest message, and the form of their codes.
MAX_PROBLEMS, MAX_PROBLEM = 5, 200
_PROBLEM_CODE = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


def _object(properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    """Returns the schema of an object with these properties. All of them are required, except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


_TIME: Schema = {"type": "string", "format": "date-time"}
_HASH: Schema = {"type": "string", "pattern": f"^{_SHA256.pattern}$"}


@extend_schema_field(_object({"total": _COUNT, "effects": _COUNT, "unknown": _COUNT}))
class ToolCallsField(serializers.Field[Any, Any, Any, Any]):
    """The counts of a run's tool calls. Malformed counts become None and raise no error."""

    def to_internal_value(self, data: Any) -> ToolCalls | None:
        if not isinstance(data, dict):
            return None
        total, effects, unknown = (
            _whole_count(data.get(name)) for name in ("total", "effects", "unknown")
        )
        if total is None or effects is None or unknown is None or max(effects, unknown) > total:
            return None
        return ToolCalls(total, effects, unknown)


@extend_schema_field(
    {
        "type": "array",
        "items": _object(
            {
                "at": _TIME,
                "tool": {"type": "string", "minLength": 1},
                "durationMs": {"type": ["integer", "null"], "minimum": 0},
                "outcome": {"type": "string", "enum": list(CALL_OUTCOMES)},
                "effect": {"type": "string", "enum": list(CALL_EFFECTS)},
                "before": {"type": "boolean"},
                "callId": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_CALL_ID},
            },
            optional=("durationMs", "before", "callId"),
        ),
    }
)
class ToolCallListField(serializers.Field[Any, Any, Any, Any]):
    """The list of a run's first tool calls. Malformed calls are left out and raise no error."""

    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        return list(islice(_calls(data if isinstance(data, list) else []), MAX_LISTED_CALLS))


def _calls(items: list[Any]) -> Iterator[dict[str, Any]]:
    for item in items:
        if not isinstance(item, dict):
            continue
        at, tool = time_of(item.get("at")), item.get("tool")
        outcome, effect, call_id = (item.get(name) for name in ("outcome", "effect", "callId"))
        if at and _is_text(tool) and outcome in CALL_OUTCOMES and effect in CALL_EFFECTS:
            yield {
                "callId": call_id if _is_text(call_id, MAX_CALL_ID) else None,
                "startedAt": at,
                "tool": tool[:MAX_TOOL_NAME],
                "durationMs": _whole_count(item.get("durationMs")),
                "outcome": outcome,
                "effect": effect,
                **({"before": True} if item.get("before") is True else {}),
            }


def _is_text(value: Any, most: int | None = None) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) > 0 and (most is None or len(value) <= most)


def _whole_count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _INT4:
        return None
    return value


def time_of(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        if _IN_OUR_FORM.fullmatch(value):
            return value
        return None if moment.tzinfo is None else iso_time(moment)
    except (ValueError, OverflowError):
        return None


class CutTextField(TextField):
    """A reported text. If it is too long, it is cut, because refusing it would lose the whole report."""

    def __init__(self, *, cut_to: int, **kwargs: Any) -> None:
        self.cut_to = cut_to
        super().__init__(trim_whitespace=False, allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(data)[: self.cut_to]


class ReportedNumberField(WholeNumberField):
    """A reported whole number. One out of range becomes null, because refusing it would lose the whole report."""

    def __init__(self, *, least: int, most: int, **kwargs: Any) -> None:
        self.range = range(least, most + 1)
        super().__init__(required=False, allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> int | None:  # type: ignore[override]
        number = super().to_internal_value(data)
        return number if number in self.range else None


@extend_schema_field({"type": "number"})
class RetryAfterField(serializers.Field[Any, Any, Any, Any]):
    """Seconds, rounded up and limited to 24 hours. A value that is not a number counts as null."""

    def to_internal_value(self, data: Any) -> int | None:
        if not is_finite_number(data):
            return None
        seconds: int = math.ceil(min(max(data, 0), MAX_RETRY_AFTER_SECONDS))
        return seconds


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "resetsAt": _TIME,
            "kind": {"type": ["string", "null"], "maxLength": MAX_LIMIT_KIND},
        },
        "required": ["resetsAt"],
    }
)
class UsageLimitField(serializers.Field[Any, Any, Any, Any]):
    """The usage limit that ended a run. A malformed one counts as null, because refusing it would lose the report."""

    def to_internal_value(self, data: Any) -> UsageLimit | None:
        if not isinstance(data, dict) or not isinstance(data.get("resetsAt"), str):
            return None
        try:
            resets_at = parse_datetime(data["resetsAt"])
            if resets_at is None or resets_at.tzinfo is None:
                return None
            resets_at = resets_at.astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        kind = data.get("kind")
        if not isinstance(kind, str) or not kind.isprintable():
            kind = None
        return UsageLimit(resets_at, kind and kind[:MAX_LIMIT_KIND])


@extend_schema_field({})
class OutputField(serializers.Field[Any, Any, Any, Any]):
    """Any JSON value, or TOO_DEEP, with which the parser replaces a value that is nested too deep."""

    def to_internal_value(self, data: Any) -> Any:
        return data


@extend_schema_field(
    _object(
        {
            "tool": {"type": "string", "minLength": 1, "maxLength": MAX_TOOL_NAME},
            "arguments": {},
            "argumentsHash": _HASH,
            "toolSchemaHash": _HASH,
        }
    )
)
class QuestionField(serializers.Field[Any, Any, Any, Any]):
    """The tool call for which a run waits. A malformed one is refused, because nobody could decide about it."""

    def to_internal_value(self, data: Any) -> Question:
        if not isinstance(data, dict) or data.get("arguments") is TOO_DEEP:
            raise serializers.ValidationError("Must be an object.")
        if "arguments" not in data:
            raise serializers.ValidationError("Must have the call's arguments.")
        arguments = compact_json(data["arguments"])
        if len(arguments.encode()) > MAX_ARGUMENTS_BYTES:
            raise serializers.ValidationError(
                f"The arguments must not be longer than {MAX_ARGUMENTS_BYTES // 1024} KiB."
            )
        tool = data.get("tool")
        if not _is_text(tool, MAX_TOOL_NAME) or not tool.isprintable():
            raise serializers.ValidationError(
                "Must have the name of a tool, in printable characters."
            )
        hashes = [
            value
            for name in ("argumentsHash", "toolSchemaHash")
            if isinstance(value := data.get(name), str) and _SHA256.fullmatch(value)
        ]
        if len(hashes) < 2:
            raise serializers.ValidationError("Must have two hashes of 64 hexadecimal digits.")
        return Question(tool, arguments, *hashes)


@extend_schema_field(
    _object(
        {
            "total": {"type": "integer", "minimum": 0},
            "tools": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_DENIED_TOOLS},
        }
    )
)
class DenialsField(serializers.Field[Any, Any, Any, Any]):
    """How many calls a run was denied. Malformed denials become None and raise no error."""

    def to_internal_value(self, data: Any) -> Denials | None:
        total = _whole_count(data.get("total")) if isinstance(data, dict) else None
        if total is None:
            return None
        named = data["tools"] if isinstance(data.get("tools"), list) else []
        tools = [each[:MAX_TOOL_NAME] for each in named if isinstance(each, str) and each]
        return Denials(total, tools[:MAX_DENIED_TOOLS])


@extend_schema_field(
    _object({"digest": _HASH, "lookedAt": _TIME, "nothingNew": {"type": "boolean"}})
)
class LookedField(serializers.Field[Any, Any, Any, Any]):
    """The result of a run's look, before the agent started or instead of that. A malformed one becomes UNREADABLE."""

    def to_internal_value(self, data: Any) -> Look:
        digest, at, nothing_new = (
            (data if isinstance(data, dict) else {}).get(name)
            for name in ("digest", "lookedAt", "nothingNew")
        )
        is_digest = isinstance(digest, str) and _SHA256.fullmatch(digest) is not None
        moment = time_of(at)
        if not is_digest or moment is None or not isinstance(nothing_new, bool):
            return UNREADABLE
        return Look(digest, datetime.fromisoformat(moment), nothing_new)


@extend_schema_field({"type": "array", "items": {"type": "string"}, "example": [*FEATURES]})
class FeaturesField(serializers.Field[Any, Any, Any, Any]):
    """The features of a worker. A value that is no list counts as empty, because newer workers may send other forms."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, default=None)

    def to_internal_value(self, data: Any) -> list[str]:
        return known_features(data if isinstance(data, list) else [])

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        """Null or a missing value means no features."""
        return (True, []) if data in (None, serializers.empty) else (False, data)


def known_features(named: Collection[Any]) -> list[str]:
    return [feature for feature in FEATURES if feature in named]


@extend_schema_field(
    {
        "type": "array",
        "items": _object(
            {
                "code": {"type": "string", "pattern": f"^{_PROBLEM_CODE.pattern}$"},
                "message": {"type": "string", "minLength": 1},
            }
        ),
    }
)
class ProblemsField(serializers.Field[Any, Any, Any, Any]):
    """The problems of the worker's machine, as the JSON to store. Malformed problems are left out."""

    def __init__(self) -> None:
        super().__init__(required=False, allow_null=True, default=None)

    def to_internal_value(self, data: Any) -> str:
        found = [
            {"code": code, "message": message[:MAX_PROBLEM]}
            for each in (data if isinstance(data, list) else ())
            if isinstance(each, dict)
            and isinstance(code := each.get("code"), str)
            and _PROBLEM_CODE.fullmatch(code)
            and isinstance(message := each.get("message"), str)
            and message.strip()
            and message.isprintable()
        ]
        return compact_json(found[:MAX_PROBLEMS])


class ClaimIdField(TextField):
    """The id that a worker chose for its claim of a run, so that it can repeat the claim; null for none."""

    def __init__(self) -> None:
        super().__init__(
            max_length=64,
            trim_whitespace=False,
            allow_blank=True,
            allow_null=True,
            default=None,
        )


class RegisterBody(Body):
    """The body of POST /workers/register. The `wrk_` token may instead come in the Authorization header."""

    hostname = NameField(max_length=255)
    os = NameField(max_length=255)
    version = NameField(max_length=64)
    label = NameField(max_length=255, required=False, allow_null=True)  # type: ignore[assignment]
    authMode = AuthModeField(choices=Worker.AuthMode.choices, default=Worker.AuthMode.CLAUDE_MAX)
    maxConcurrency = WholeNumberField(min_value=1, max_value=MAX_CONCURRENCY, default=1)
    accountId = AccountIdField()
    problems = ProblemsField()


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
    problems = ProblemsField()


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
    inputTokens = ReportedNumberField(least=0, most=_INT8)
    outputTokens = ReportedNumberField(least=0, most=_INT8)
    cacheReadTokens = ReportedNumberField(least=0, most=_INT8)
    cacheCreationTokens = ReportedNumberField(least=0, most=_INT8)
    costUsd = MoneyField(required=False, allow_null=True)
    numTurns = ReportedNumberField(least=0, most=_INT4)
    sessionId = CutTextField(cut_to=255, required=False, allow_null=True)
    model = CutTextField(cut_to=200, required=False, allow_null=True)
    retryAfterSeconds = RetryAfterField(required=False, allow_null=True)
    usageLimit = UsageLimitField(required=False, allow_null=True)
    toolCalls = ToolCallsField(required=False, allow_null=True)
    toolCallList = ToolCallListField(required=False)
    # A JSON null is an output too. If the worker reported no output, the validated values lack `output`.
    output = OutputField(required=False, allow_null=True)
    # The approval that the run asks for, with the status `waiting`.
    approval = QuestionField(required=False, allow_null=True)
    # With the status `waiting`, the `claimId` with which the worker had claimed the run.
    claimId = ClaimIdField()
    denials = DenialsField(required=False, allow_null=True)
    before = LookedField(source="look", required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuses a report of a waiting run if nobody could decide about its call, or no worker could continue it."""
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
    """Returns a report in the form in which a late result is stored, by the API's names. It leaves out the list of tool
    calls, and an output that is too long, because the API shows late results within the run.
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
    if (look := values.get("look")) is not None:
        looked_at = look.looked_at and iso_time(look.looked_at)
        about = {"lookedAt": looked_at, "nothingNew": look.nothing_new}
        reported["before"] = {"digest": look.digest, **about}
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
    warnings = serializers.ListField(child=serializers.CharField())


class HandedOutLookSerializer(RowSerializer):
    """What a worker looks at before it starts the agent, and the digest of what the last success saw there."""

    keeps_names = True

    tool = serializers.CharField()
    arguments = ArgumentsField()
    runIf = RunIfField()
    lastDigest = serializers.CharField(allow_null=True)
    lookOnly = serializers.BooleanField()


class PreviousRunSerializer(RowSerializer):
    """The trigger's last success that had something new, with its output, or else its message."""

    runId = serializers.UUIDField(source="previous_id")
    endedAt = serializers.DateTimeField(source="previous_ended_at")
    triggerRevisionId = serializers.UUIDField(source="previous_revision_id")
    output = serializers.JSONField(source="previous_output", allow_null=True)


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

    of: ClassVar[Declaring] = (Run, Trigger, TriggerRevision, RunText)
    shows = (
        "id triggerId triggerName prompt mcpUrl mcpHeaders headersExpireAt model timeoutSeconds"
        " payload outputSchema retryAfterEffects retryMode resumeSessionId resumeUntil maxCostUsd"
        " recordEvents attempt queuedAt approvals before previous"
    )
    triggerName = serializers.CharField()
    mcpHeaders = serializers.DictField(child=serializers.CharField())
    headersExpireAt = serializers.DateTimeField(allow_null=True)
    outputSchema = OutputSchemaField(allow_null=True)
    resumeSessionId = serializers.CharField(allow_null=True)

    approvals = HandedOutApprovalsSerializer(required=False)
    before = HandedOutLookSerializer(required=False)
    previous = PreviousRunSerializer(required=False)

    def to_representation(self, instance: HandedOut) -> dict[str, Any]:  # type: ignore[override]
        """Leaves out what the run lacks: `approvals` if it has no rules and never waited, `before`, and `previous`."""
        row = {
            **instance.row,
            "mcp_headers": instance.mcp_headers,
            "approvals": None,
            "previous": None,
        }
        if row["before"] is not None:
            about = {"lastDigest": row.get("last_digest"), "lookOnly": row["look_only"]}
            row["before"] = {**row["before"], **about}
        if row.get("previous_ended_at") is not None:
            row["previous"] = {**row, "previous_output": carried(row["previous_output"])}
        rules = rules_in_force(row["kept_rules"], row["present_rules"])
        if rules or row["decision"] is not None:
            row["approvals"] = {**row, "rules": rules}
        shown: dict[str, Any] = super().to_representation(row)
        for name in ("approvals", "before", "previous"):
            if shown[name] is None:
                del shown[name]
        return shown


def carried(output: str | None) -> Any:
    """Returns an output, given as JSON text, for later runs. If it is longer than MAX_CARRIED_BYTES, it is returned as
    text that is cut at a character, with a note.
    """
    if output is None or len(whole := output.encode()) <= MAX_CARRIED_BYTES:
        return None if output is None else json.loads(output)
    note = f"… (cut: {len(whole)} bytes in all)"
    return whole[: MAX_CARRIED_BYTES - len(note.encode())].decode(errors="ignore") + note


class NextRunSerializer(HandedOutRunSerializer, ClaimedRunSerializer):
    """A run as `claim-next` answers it: all that a poll and a claim say of it."""
