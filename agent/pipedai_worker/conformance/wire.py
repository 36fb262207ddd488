"""What the API takes: the shapes of the requests that a worker sends, for the fake API to insist on."""

from __future__ import annotations

import re
from typing import Any

LONGEST_WAIT_SECONDS = 30
LONGEST_CLAIM_ID = 64
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
FAULT_CLASSES = {"infra", "client", "none", None}
TEXTS = ("shortMessage", "errorMessage", "sessionId", "model")
WHOLE_NUMBERS = (
    *("exitCode", "numTurns"),
    *("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens"),
)
NUMBERS = ("costUsd", "retryAfterSeconds")


def is_json(content_type: str | None) -> bool:
    """Whether a request's content type is the one that the API takes."""
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def problem(kind: str, query: dict[str, list[str]], body: dict[str, Any]) -> str | None:
    """What the API would answer 400 for, or None."""
    if kind == "poll":
        wait = query.get("wait", ["0"])[0]
        if not re.fullmatch("[0-9]{1,2}", wait) or int(wait) > LONGEST_WAIT_SECONDS:
            return f"wait={wait} is no whole number from 0 to {LONGEST_WAIT_SECONDS}"
    if kind == "claim":
        claim_id = body.get("claimId")
        if claim_id is not None and not (
            isinstance(claim_id, str) and len(claim_id) <= LONGEST_CLAIM_ID
        ):
            return f"claimId is no text of at most {LONGEST_CLAIM_ID} characters"
    if kind == "complete":
        return _problem_of_outcome(body)
    return None


def _problem_of_outcome(body: dict[str, Any]) -> str | None:
    if body.get("status") not in TERMINAL:
        return f"status {body.get('status')!r} is none that a run ends with"
    if body.get("faultClass") not in FAULT_CLASSES:
        return f"faultClass {body['faultClass']!r} is none"
    for names, kinds, wanted in (
        (TEXTS, (str,), "text"),
        (WHOLE_NUMBERS, (int,), "whole number"),
        (NUMBERS, (int, float, str), "number"),
    ):
        for name in names:
            value = body.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
                return f"{name} is no {wanted}"
    return None
