"""Decides whose fault a failure of claude is: the client's, if the same prompt would fail again, or else
infrastructure's.

Only codes and statuses count, because claude's texts change and may quote prompts and tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipedai_worker.reporting.outcome import CLIENT, INFRA

# These subtypes of a result mean that the task reached a limit, as the same prompt would again: the client's fault.
BUDGET_REACHED = "error_max_budget_usd"
CLIENT_SUBTYPES = {
    "error_max_turns": "Claude reached its limit of turns.",
    BUDGET_REACHED: "Claude reached its budget.",
    "error_max_structured_output_retries": "Claude did not produce the output asked for.",
}
DEFERRED = "tool_deferred"
CLIENT_REASONS = frozenset(
    {
        *("max_turns", "budget_exhausted", "blocking_limit", "prompt_too_long", "image_error"),
        *("rapid_refill_breaker", "structured_output_retry_exhausted"),
        # A hook in this machine's settings for claude ended the run, and would end it again.
        *("stop_hook_prevented", "hook_stopped", DEFERRED, "tool_deferred_unavailable"),
    }
)
EXECUTION_ERROR = "error_during_execution"
COMPLETED = "completed"
# After these kinds of API error another attempt may succeed. The API and claude name some of them differently.
INFRA_KINDS = frozenset(
    {
        "rate_limit",
        "rate_limit_error",
        "overloaded",
        "overloaded_error",
        "server_error",
        "api_error",
        "timeout",
        "timeout_error",
        "connection_failed",
        "unknown",
    }
)
RATE_LIMIT_KINDS = frozenset({"rate_limit", "rate_limit_error"})
RATE_LIMIT_STATUS, LARGEST_STATUS = 429, 599
# A kind or reason that claude names is cut to this many characters, because it becomes a part of a sentence.
LONGEST_WORD = 200
# After an answer with one of these HTTP statuses, the same request may succeed later.
RETRYABLE_STATUSES = frozenset({408, 409, 425, RATE_LIMIT_STATUS})


@dataclass(frozen=True)
class Fault:
    """Whose fault a failure is, and a sentence on what happened."""

    fault_class: str
    sentence: str
    rate_limited: bool = False
    # True if claude has spent what it was allowed to spend.
    over_budget: bool = False


def judge(result: dict[str, Any], api_error: str | None, *, limit_reached: bool) -> Fault:
    """Return whose fault a failed result is. `api_error` is the kind of API error that claude named last, and
    `limit_reached` says that the host's usage limit is used up.
    """
    subtype = _word(result.get("subtype"))
    if subtype in CLIENT_SUBTYPES:
        sentence = CLIENT_SUBTYPES[subtype]
        return Fault(CLIENT, sentence, over_budget=subtype == BUDGET_REACHED)
    status = result.get("api_error_status")
    # `api_error`, from claude's messages, is used last, because claude's messages call many different errors `unknown`.
    kind = _word(result.get("api_error_type")) or error_kind(result) or api_error
    if limit_reached or status == RATE_LIMIT_STATUS or kind in RATE_LIMIT_KINDS:
        return Fault(INFRA, "Claude's usage limit is reached on the worker.", rate_limited=True)
    if isinstance(status, int) and 400 <= status <= LARGEST_STATUS:
        retryable = status >= 500 or status in RETRYABLE_STATUSES
        named = f" ({kind})" if kind else ""
        return Fault(INFRA if retryable else CLIENT, f"The model's API answered {status}{named}.")
    if kind is not None:
        return Fault(INFRA if kind in INFRA_KINDS else CLIENT, f"The model's API failed: {kind}.")
    reason = _word(result.get("terminal_reason"))
    if reason in CLIENT_REASONS:
        return Fault(CLIENT, f"Claude ended: {reason}.")
    if subtype == EXECUTION_ERROR or subtype is None:
        return Fault(INFRA, "Claude failed while it was at work.")
    return Fault(CLIENT, f"Claude reported an error ({subtype}).")


def flaw(result: dict[str, Any]) -> Fault | None:
    if result.get("num_turns") == 0:
        return Fault(CLIENT, "Claude took the prompt for a command of its own and asked no model.")
    # Claude gives no `terminal_reason` when it defers the same call again after a resume.
    deferred = DEFERRED if result.get("stop_reason") == DEFERRED else None
    reason = _word(result.get("terminal_reason")) or deferred
    if reason in {None, COMPLETED}:
        return None
    if reason in CLIENT_REASONS:
        return Fault(CLIENT, f"Claude ended before its task was done: {reason}.")
    return Fault(INFRA, f"Claude ended before its task was done: {reason}.")


def error_kind(event: dict[str, Any]) -> str | None:
    """Return the kind of API error that an event names: its `error`, or the `type` inside `error`."""
    error = event.get("error")
    if isinstance(error, dict):
        error = error.get("type")
    return _word(error)


def _word(value: Any) -> str | None:
    return value[:LONGEST_WORD] if isinstance(value, str) and value else None
