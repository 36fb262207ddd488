"""The worker's conformance kit accepts and refuses exactly the same requests as this API."""

from datetime import timedelta
from typing import Any

import pytest

from pipedai.api.serializers import Body
from pipedai.env import BASE_DIR
from pipedai_worker.conformance import wire
from pipedai_worker.conformance.fake_run import LONGEST_OUTPUT
from pipedai_worker.gateway import gate
from testing.world.tool_calls import CALL
from triggers.approval_rules import MAX_ARGUMENTS_BYTES
from triggers.runs.outcome import MAX_LISTED_CALLS, MAX_OUTPUT_BYTES
from triggers.states import TERMINAL
from workers.protocol.fields import UsageLimitField
from workers.protocol.serializers import (
    MAX_WAIT_SECONDS,
    ClaimBody,
    ClaimNextBody,
    CompleteBody,
)
from workers.protocol.tool_calls import ToolCallListField, ToolCallsField

# Values of every kind that a client in any language may send.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 5, 5.0, 5.5, 1e300, 2**31, 2**63, 2**70),
    *("", "5", "-5", "5.5", "1e5", "NaN", "abc", "x" * 64, "x" * 65, "x" * 10_000),
    *([], {}, ["a"], "infra", "none", "Infra", "succeeded", "Succeeded", " succeeded "),
]


@pytest.mark.parametrize("field", list(CompleteBody().fields))
def test_an_outcome_is_refused_by_the_kit_when_the_api_refuses_it(field: str) -> None:
    for value in VALUES:
        body = {"status": "succeeded", field: value}
        taken = CompleteBody(data=body).is_valid()
        assert (wire.problem("complete", {}, body) is None) is taken, value


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("claim", ClaimBody, "claimId"),
        ("claim", ClaimBody, "start"),
        ("claim-next", ClaimNextBody, "claimId"),
        ("claim-next", ClaimNextBody, "start"),
        ("claim-next", ClaimNextBody, "wait"),
    ],
)
def test_a_claim_is_refused_by_the_kit_when_the_api_refuses_it(
    kind: str, body: type[Body], field: str
) -> None:
    for value in [*VALUES, 30, 31]:
        sent = {"claimId": "mine", field: value}
        taken = body(data=sent).is_valid()
        assert (wire.problem(kind, {}, sent) is None) is taken, value


COUNTS = [
    *({"total": value, "effects": 0, "unknown": 0} for value in VALUES),
    *({"total": 5, "effects": value, "unknown": 0} for value in VALUES),
    *({"total": 5, "effects": 0, "unknown": value} for value in VALUES),
]


@pytest.mark.parametrize("counts", [value for value in [*VALUES, *COUNTS] if value is not None])
def test_the_kit_finds_fault_with_the_counts_that_the_api_ignores(counts: Any) -> None:
    taken = ToolCallsField().to_internal_value(counts) is not None
    assert (wire.flaw_of_calls({"toolCalls": counts}, None) is None) is taken


@pytest.mark.parametrize("field", ["at", "tool", "durationMs", "outcome", "effect"])
def test_the_kit_finds_fault_with_the_calls_that_the_api_changes(field: str) -> None:
    for value in [*VALUES, "2026-05-04T12:00:01Z", "2026-05-04T12:00:01", "ok", "possible"]:
        sent = {**CALL, field: value}
        kept = ToolCallListField().to_internal_value([sent])
        is_kept = bool(kept) and (field == "at" or kept[0][field] == value)
        assert (wire.flaw_of_calls({"toolCallList": [sent]}, None) is None) is is_kept, value


def test_the_kit_finds_fault_with_counts_that_go_down_and_lists_that_are_too_long() -> None:
    earlier = {"total": 3, "effects": 2, "unknown": 1}
    assert wire.flaw_of_calls({"toolCalls": {**earlier, "unknown": 0}}, earlier) is None
    for name in ("total", "effects"):
        fewer = {**earlier, name: earlier[name] - 1, "unknown": 0}
        assert "went down" in str(wire.flaw_of_calls({"toolCalls": fewer}, earlier))
    assert wire.LONGEST_LIST == MAX_LISTED_CALLS
    assert wire.flaw_of_calls({"toolCallList": [CALL] * 500}, None) is None
    assert "more than 500" in str(wire.flaw_of_calls({"toolCallList": [CALL] * 501}, None))
    assert "says" in str(
        wire.flaw_of_calls({"toolCalls": earlier, "toolCallList": [CALL] * 4}, None)
    )
    assert LONGEST_OUTPUT == MAX_OUTPUT_BYTES


LIMITS: list[Any] = [
    *VALUES,
    *({"resetsAt": value} for value in VALUES),
    *(
        {"resetsAt": "2026-05-04T12:00:01Z", "kind": value}
        for value in [*VALUES, "a\nb", "five_hour"]
    ),
    *(
        {"resetsAt": value, "kind": None}
        for value in (
            *("2026-05-04T12:00:01.123Z", "2026-05-04T12:00:01+05:30", "2026-05-04T12:00:01"),
            *("2026-13-04T12:00:01Z", "2026-05-04T25:00:01Z", "tomorrow"),
        )
    ),
]


@pytest.mark.parametrize("limit", [value for value in LIMITS if value is not None])
def test_the_kit_finds_fault_with_the_usage_limit_that_the_api_ignores_or_changes(
    limit: Any,
) -> None:
    kept = UsageLimitField().to_internal_value(limit)
    is_kept = kept is not None and kept.kind == limit.get("kind")
    body = {"status": "failed", "faultClass": "infra", "usageLimit": limit}
    assert (wire.flaw_of_limit(body) is None) is is_kept
    if kept is not None:
        told = wire.resets_at(limit)
        assert told is not None
        assert abs(told - kept.resets_at) < timedelta(seconds=1)
    for other in ({"status": "succeeded"}, {"faultClass": "client"}):
        assert wire.flaw_of_limit({**body, **other}) is not None


def test_the_kit_knows_the_same_endings_and_the_same_longest_wait() -> None:
    assert {status.value for status in TERMINAL} == wire.TERMINAL
    assert wire.LONGEST_WAIT_SECONDS == MAX_WAIT_SECONDS


def test_the_gateway_lets_nobody_ask_about_longer_arguments_than_the_api_takes() -> None:
    assert gate.LARGEST_ARGUMENTS == wire.LARGEST_ARGUMENTS == MAX_ARGUMENTS_BYTES
    reference = " ".join((BASE_DIR / "API.md").read_text().split())
    assert (
        f"at most {MAX_ARGUMENTS_BYTES // 1024} KiB as compact JSON; `argumentsHash`" in reference
    )
