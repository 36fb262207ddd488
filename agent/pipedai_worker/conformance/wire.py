"""Describes which requests the real API accepts, so that the fake API can refuse all others."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from pipedai_worker.conformance import event_wire

LONGEST_WAIT_SECONDS = 30
LONGEST_CLAIM_ID = 64
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
FAULT_CLASSES = {"infra", "client", "none"}
TEXTS = ("shortMessage", "errorMessage", "sessionId", "model")
WHOLE_NUMBERS = (
    *("exitCode", "numTurns"),
    *("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens"),
)


def parse(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a request's body; None for any other body. An empty body counts as an empty object."""
    try:
        body = json.loads(data or b"{}", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


def is_json(content_type: str | None) -> bool:
    """Tell whether the API accepts this value of a request's Content-Type header."""
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
        return event_wire.problem(body)
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
    return None


def _problem_of_outcome(body: dict[str, Any]) -> str | None:
    status, fault_class = body.get("status"), body.get("faultClass")
    if not isinstance(status, str) or status not in TERMINAL:
        return f"status {status!r} is none that a run ends with"
    if fault_class is not None and (
        not isinstance(fault_class, str) or fault_class not in FAULT_CLASSES
    ):
        return f"faultClass {fault_class!r} is none"
    for names, fits, wanted in (
        (TEXTS, _is_text, "text"),
        (WHOLE_NUMBERS, _is_whole, "whole number"),
        (("costUsd",), _is_money, "number"),
    ):
        for name in names:
            if body.get(name) is not None and not fits(body[name]):
                return f"{name} is no {wanted}"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_money(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        Decimal(str(value))
    except InvalidOperation:
        return False
    return True
