"""Describes which requests the real API accepts, so that the fake API can refuse or notice all others."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pipedai_worker import values
from pipedai_worker.conformance.fake_run import FakeRun

LONGEST_WAIT_SECONDS = 30
LONGEST_CLAIM_ID = 64
MOST_WAITING_RUNS = 100
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
WAITING = "waiting"
# What a report of a run that waits tells of the call, and what of it the decision repeats.
PARKED = {"tool", "arguments", "argumentsHash", "toolSchemaHash"}
APPROVED = ("approvalId", "tool", "argumentsHash", "toolSchemaHash")
LARGEST_ARGUMENTS = 64 * 1024
MOST_DENIED = 20
FAULT_CLASSES = {"infra", "client", "none"}
TEXTS = ("shortMessage", "errorMessage", "sessionId", "model")
WHOLE_NUMBERS = (
    *("exitCode", "numTurns"),
    *("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens"),
)
# The API's bounds on events: their number and bytes in a call and in a run, and the length of a type.
MOST_IN_A_CALL = 500
MOST_BYTES_IN_A_CALL = 256 * 1024
MOST_EVENTS = 20_000
MOST_BYTES = 5 * 1024 * 1024
LONGEST_TYPE = 64
# The API's bounds on lists of tool calls, on the names in them, and on usage limits.
LONGEST_LIST = 500
LONGEST_NAME = 200
_MOST = 2**31 - 1
_COUNTS = ("total", "effects", "unknown")
_OUTCOMES = ("ok", "error", "unknown")
_EFFECTS = ("none", "idempotent", "possible")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
LONGEST_KIND = 64
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse(data: bytes) -> dict[str, Any] | None:
    try:
        body = values.parse(data or b"{}", parse_constant=values.refuse_constant)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def is_json(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def problem(kind: str, query: dict[str, list[str]], body: dict[str, Any]) -> str | None:
    """Return a sentence that says why the API would answer the request with 400; None if it would not."""
    if kind == "poll":
        wait = query.get("wait", ["0"])[0]
        if not re.fullmatch("[0-9]{1,2}", wait) or int(wait) > LONGEST_WAIT_SECONDS:
            return f"wait={wait} is no whole number from 0 to {LONGEST_WAIT_SECONDS}"
    if kind in {"claim", "claim-next"}:
        return _problem_of_claim(kind, body)
    if kind == "events":
        return problem_of_events(body)
    if kind == "complete":
        return _problem_of_outcome(body)
    return None


def _problem_of_claim(kind: str, body: dict[str, Any]) -> str | None:
    claim_id, wait = body.get("claimId"), body.get("wait", 0)
    shortest = 0
    if kind == "claim-next":
        shortest = 1
        if not _is_whole(wait) or not 0 <= wait <= LONGEST_WAIT_SECONDS:
            return f"wait={wait} is no whole number from 0 to {LONGEST_WAIT_SECONDS}"
    elif claim_id is None:
        claim_id = ""
    if not isinstance(claim_id, str) or not shortest <= len(claim_id) <= LONGEST_CLAIM_ID:
        return f"claimId is no text of {shortest} to {LONGEST_CLAIM_ID} characters"
    if not isinstance(body.get("start", False), bool):
        return "start is neither true nor false"
    waiting = [] if body.get("waitingRuns") is None else body["waitingRuns"]
    fits = isinstance(waiting, list) and len(waiting) <= MOST_WAITING_RUNS
    if not fits or not all(isinstance(each, str) and _ID.fullmatch(each) for each in waiting):
        return f"waitingRuns is no list of at most {MOST_WAITING_RUNS} ids"
    return None


def _problem_of_outcome(body: dict[str, Any]) -> str | None:
    status, fault_class = body.get("status"), body.get("faultClass")
    if status not in (*TERMINAL, WAITING):
        return f"status {status!r} is none that a run ends with"
    if fault_class not in (None, *FAULT_CLASSES):
        return f"faultClass {fault_class!r} is none"
    for names, fits, wanted in (
        (TEXTS, _is_text, "text"),
        (WHOLE_NUMBERS, _is_whole, "whole number"),
        (("costUsd",), _is_money, "number"),
    ):
        for name in names:
            if body.get(name) is not None and not fits(body[name]):
                return f"{name} is no {wanted}"
    return _problem_of_approval(body)


def _problem_of_approval(body: dict[str, Any]) -> str | None:
    claim_id, approval, waits = body.get("claimId"), body.get("approval"), body["status"] == WAITING
    if claim_id is not None and (not _is_text(claim_id) or len(claim_id) > LONGEST_CLAIM_ID):
        return f"claimId is no text of at most {LONGEST_CLAIM_ID} characters"
    if approval is None and not waits:
        return None
    if not isinstance(approval, dict) or approval.keys() != PARKED:
        return f"approval is no object with {', '.join(sorted(PARKED))}"
    arguments = approval["arguments"]
    if not isinstance(arguments, dict) or size(arguments) > LARGEST_ARGUMENTS:
        return f"approval.arguments is no object of at most {LARGEST_ARGUMENTS} bytes"
    for name in ("argumentsHash", "toolSchemaHash"):
        if not re.fullmatch("[0-9a-f]{64}", str(approval[name])):
            return f"approval.{name} is no SHA-256 in hexadecimal digits"
    if not isinstance(approval["tool"], str) or not 1 <= len(approval["tool"]) <= LONGEST_NAME:
        return f"approval.tool is no text of 1 to {LONGEST_NAME} characters"
    if waits and not body.get("sessionId"):
        return "sessionId is missing, without which nobody can go on"
    return None


def flaw_of_denials(body: dict[str, Any]) -> str | None:
    """Return what is wrong with the refused calls that a body tells, or None."""
    denials = body.get("denials")
    if denials is None:
        return None
    tools = denials.get("tools") if isinstance(denials, dict) else None
    if not isinstance(tools, list) or len(tools) > MOST_DENIED or not all(map(_is_text, tools)):
        return f"denials.tools is no list of at most {MOST_DENIED} texts"
    if not _is_count(denials.get("total")) or denials["total"] < len(tools):
        return "denials.total is no whole number that covers denials.tools"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return value.is_integer() if isinstance(value, float) else type(value) is int


def _is_money(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        Decimal(str(value))
    except InvalidOperation:
        return False
    return True


def problem_of_events(body: dict[str, Any]) -> str | None:
    """Return a sentence that says why the API would answer this call with 400; None if it would not."""
    events = body.get("events")
    if not isinstance(events, list) or len(events) > MOST_IN_A_CALL:
        return f"events is no list of at most {MOST_IN_A_CALL}"
    if size(body) > MOST_BYTES_IN_A_CALL:
        return f"the events have more than {MOST_BYTES_IN_A_CALL} bytes"
    for event in events:
        kind, text = event.get("type"), event.get("text")
        if not isinstance(kind, str) or not 1 <= len(kind) <= LONGEST_TYPE:
            return f"type {kind!r} is no text of 1 to {LONGEST_TYPE} characters"
        if text is not None and not isinstance(text, str):
            return "text is no text"
        if type(event.get("seq")) is not int or not isinstance(event.get("at"), str):
            return "an event lacks its seq or its time"
    return None


def take_events(run: FakeRun, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Add those events to the run that it has not got yet, and return the status and the answer."""
    failed = run.record_events == "failures" and run.status in TERMINAL - {"succeeded"}
    if run.record_events != "always" and not failed:
        return 409, {"error": "The run's trigger records no events.", "code": "events_off"}
    for event in body["events"]:
        expected = len(run.events) + 1
        if event["seq"] > expected:
            sentence = f"Event {expected} is missing."
            return 409, {"error": sentence, "code": "event_gap", "nextSeq": expected}
        if event["seq"] == expected:
            run.events.append(event)
    return 200, {"nextSeq": len(run.events) + 1}


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def flaw_of_calls(body: dict[str, Any], earlier: dict[str, int] | None) -> str | None:
    """Return what is wrong with a body's tool calls, or None. `total` and `effects` must not be below `earlier`."""
    counts = body.get("toolCalls")
    if counts is not None:
        if (problem := _flaw_of_counts(counts)) is not None:
            return problem
        for name in ("total", "effects"):
            if earlier is not None and counts[name] < earlier[name]:
                return f"toolCalls.{name} went down from {earlier[name]} to {counts[name]}"
    return _flaw_of_list(body.get("toolCallList"), counts)


def _flaw_of_counts(counts: Any) -> str | None:
    if not isinstance(counts, dict):
        return "toolCalls is no object"
    for name in _COUNTS:
        if not _is_count(counts.get(name)):
            return f"toolCalls.{name} is no whole number from 0 to {_MOST}"
    for name in ("effects", "unknown"):
        if counts[name] > counts["total"]:
            return f"toolCalls.{name} exceeds toolCalls.total"
    return None


def _flaw_of_list(calls: Any, counts: Any) -> str | None:
    if calls is None:
        return None
    if not isinstance(calls, list):
        return "toolCallList is no list"
    if len(calls) > LONGEST_LIST:
        return f"toolCallList has more than {LONGEST_LIST} items"
    if counts is not None and len(calls) > counts["total"]:
        return "toolCallList has more items than toolCalls.total says"
    for number, call in enumerate(calls):
        if (problem := _flaw_of_call(call)) is not None:
            return f"toolCallList[{number}] {problem}"
    return None


def _flaw_of_call(call: Any) -> str | None:
    if not isinstance(call, dict):
        return "is no object"
    at, tool, duration = call.get("at"), call.get("tool"), call.get("durationMs")
    if not isinstance(at, str) or not _TIME.fullmatch(at):
        return "has no time with its offset from UTC in `at`"
    if not isinstance(tool, str) or not 1 <= len(tool) <= LONGEST_NAME:
        return f"has no name of 1 to {LONGEST_NAME} characters in `tool`"
    if duration is not None and not _is_count(duration):
        return "has no whole number of milliseconds in `durationMs`"
    if call.get("outcome") not in _OUTCOMES:
        return "has none of the outcomes in `outcome`"
    if call.get("effect") not in _EFFECTS:
        return "has none of the effects in `effect`"
    return None


def _is_count(value: Any) -> bool:
    return _is_whole(value) and 0 <= value <= _MOST


def flaw_of_limit(body: dict[str, Any]) -> str | None:
    """Return what is wrong with the usage limit in a report, or None. A report need not have one."""
    limit = body.get("usageLimit")
    if limit is None:
        return None
    if (body.get("status"), body.get("faultClass")) != ("failed", "infra"):
        return "usageLimit counts only with the status failed and the faultClass infra"
    if not isinstance(limit, dict):
        return "usageLimit is no object"
    if resets_at(limit) is None:
        return "usageLimit.resetsAt is no time with its offset from UTC"
    kind = limit.get("kind")
    if kind is None or (_is_text(kind) and len(kind) <= LONGEST_KIND and kind.isprintable()):
        return None
    return f"usageLimit.kind is no text of at most {LONGEST_KIND} characters"


def resets_at(limit: dict[str, Any]) -> datetime | None:
    """Return when a usage limit ends that a report tells; None if it does not tell that in the API's form."""
    text = limit.get("resetsAt")
    if not isinstance(text, str) or (match := _TIME.fullmatch(text)) is None:
        return None
    # Python 3.9 reads neither `Z` nor fractions of any length.
    offset = "+00:00" if match[2] == "Z" else match[2]
    try:
        return datetime.fromisoformat(f"{text[:19]}{offset}")
    except ValueError:
        return None
