"""The worker's conformance kit refuses what this API refuses, and finds fault with what this API leaves out."""

from typing import Any

from bin.protocol import FILE, part_of
from pipedai.env import BASE_DIR
from pipedai_worker.conformance import requests
from pipedai_worker.conformance.fake_api import LONGEST_OUTPUT, TERMINAL
from pipedai_worker.gateway import gate
from testing.probes.api_schema import SCHEMA
from testing.world.tool_calls import CALL
from triggers.approval_rules import MAX_ARGUMENTS_BYTES
from triggers.runs import outcome
from triggers.states import TERMINAL as ENDED
from workers.protocol.serializers import ClaimBody, ClaimNextBody, CompleteBody

# Values of every kind that a client in any language may send.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 5, 5.0, 5.5, 1e300, 2**31, 2**63, 2**70),
    *("", "5", "-5", "5.5", "1e5", "NaN", "abc", "x" * 64, "x" * 65, "x" * 10_000),
    *([], {}, ["a"], "infra", "none", "Infra", "succeeded", "Succeeded", " succeeded "),
]
COUNTS = {"total": 3, "effects": 2, "unknown": 1}
LIMIT = {"resetsAt": "2026-05-04T12:00:01.123Z", "kind": None}


def test_the_kit_has_the_protocols_part_of_the_openapi_document() -> None:
    assert FILE.read_text() == part_of(SCHEMA), "Run `python -m bin.protocol`."


def test_the_kit_takes_nothing_that_the_api_refuses() -> None:
    reported = [("complete", CompleteBody, field) for field in CompleteBody().fields]
    claims = [
        *(("claim", ClaimBody, field) for field in ClaimBody().fields),
        *(("claim-next", ClaimNextBody, field) for field in ClaimNextBody().fields),
    ]
    wrongly_taken, refused = [], 0
    for kind, body, field in [*reported, *claims]:
        base: dict[str, Any] = (
            {"status": "succeeded"} if kind == "complete" else {"claimId": "mine"}
        )
        for value in [*VALUES, 30, 31]:
            sent: dict[str, Any] = {**base, str(field): value}
            taken = body(data=sent).is_valid()
            refused += not taken
            if not taken and requests.problem(kind, {}, sent) is None:
                wrongly_taken.append((kind, field, value))
    assert wrongly_taken == []
    assert refused > 300


def test_the_kit_refuses_what_the_document_tells_in_words_alone() -> None:
    question = {"tool": "pay", "argumentsHash": "a" * 64, "toolSchemaHash": "b" * 64}
    waits = {"status": "waiting", "sessionId": "s", "approval": {**question, "arguments": {}}}
    assert requests.problem("complete", {}, waits) is None
    for wrong in (
        {**waits, "sessionId": ""},
        {**waits, "approval": None},
        {**waits, "approval": {**question, "arguments": "x" * MAX_ARGUMENTS_BYTES}},
    ):
        assert requests.problem("complete", {}, wrong) is not None
        assert not CompleteBody(data=wrong).is_valid()
    event = {"seq": 1, "at": LIMIT["resetsAt"], "type": "message"}
    assert requests.problem("events", {}, {"events": [event]}) is None
    for long in ({**event, "text": "x" * requests.MOST_BYTES_IN_A_CALL}, {**event, "seq": 0}):
        assert requests.problem("events", {}, {"events": [long]}) is not None
    for wait, taken in (("30", True), ("31", False), ("x", False), ("-1", False)):
        assert (requests.problem("poll", {"wait": [wait]}, {}) is None) is taken


def test_the_kit_finds_fault_with_what_the_api_leaves_out() -> None:
    failed = {"status": "failed", "faultClass": "infra"}
    right = {**failed, "usageLimit": LIMIT, "toolCalls": COUNTS, "toolCallList": [CALL] * 3}
    right["denials"] = {"total": 1, "tools": ["pay"]}
    assert list(requests.flaws("complete", right, COUNTS)) == []
    assert requests.problem("complete", {}, right) is None
    wrong: list[tuple[str, Any, str]] = [
        ("toolCalls", {**COUNTS, "effects": 4}, "exceeds"),
        ("toolCalls", {**COUNTS, "total": -1}, "minimum"),
        ("toolCalls", {"total": 3}, "required"),
        ("toolCalls", {**COUNTS, "effects": 1}, "went down"),
        ("toolCallList", [CALL] * 4, "says"),
        ("toolCallList", [CALL] * 501, "more than 500"),
        *(("toolCallList", [{**CALL, name: "bad"}], name) for name in ("at", "outcome", "effect")),
        ("toolCallList", [{**CALL, "at": "2026-05-04T12:00:01"}], "date-time"),
        ("usageLimit", {"resetsAt": "2026-13-04T12:00:01Z"}, "date-time"),
        ("usageLimit", {"kind": "five_hour"}, "required"),
        ("denials", {"total": 0, "tools": ["pay"]}, "cover"),
        ("denials", {"total": 30, "tools": ["pay"] * 21}, "too long"),
    ]
    for name, value, sentence in wrong:
        found = list(requests.flaws("complete", {**right, name: value}, COUNTS))
        assert sentence in " ".join(found), (name, value)
        assert requests.problem("complete", {}, {**right, name: value}) is None
    for other in ({"status": "succeeded"}, {"faultClass": "client"}):
        assert list(requests.flaws("complete", {**right, **other}))


def test_the_kit_and_the_gateway_have_the_bounds_of_the_api() -> None:
    assert {status.value for status in ENDED} == TERMINAL
    assert requests.LONGEST_LIST == outcome.MAX_LISTED_CALLS
    assert LONGEST_OUTPUT == outcome.MAX_OUTPUT_BYTES
    assert gate.LARGEST_ARGUMENTS == requests.LARGEST_ARGUMENTS == MAX_ARGUMENTS_BYTES
    reference = " ".join((BASE_DIR / "API.md").read_text().split())
    assert (
        f"at most {MAX_ARGUMENTS_BYTES // 1024} KiB as compact JSON; `argumentsHash`" in reference
    )
