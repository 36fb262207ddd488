"""Turns what a run's program writes into the events that the API is told, with a small and stable set of types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipedai_worker.executors.faults import DEFERRED
from pipedai_worker.executors.settings import TOOL_PREFIX
from pipedai_worker.executors.transcript import text_of
from pipedai_worker.values import whole

# What the model says, what it thinks, the tools that it calls, and what they answer.
MESSAGE, THINKING, TOOL_CALL, TOOL_RESULT = "message", "thinking", "tool_call", "tool_result"
# What claude says of itself, and how it ended.
STATUS, RESULT = "status", "result"
# What any other program writes, and what claude writes to stderr.
STDOUT, STDERR = "stdout", "stderr"
# The last event of a run that told more than is kept.
TRUNCATED = "truncated"

# Pieces of these streams follow each other without a gap. A piece that is too long becomes several events.
STREAMS = frozenset({STDOUT, STDERR})
# Claude writes these while a message is still being made, and the whole message afterwards.
_PARTS = frozenset({"stream_event"})


@dataclass(frozen=True)
class RunEvent:
    """One event without its number and time. Each of `texts` is a line of the event's text, and may go on where the one
    before it ended. Texts and data may still hold secrets.
    """

    type: str
    texts: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def read(kind: str, payload: Any) -> Iterator[RunEvent]:
    """Return the events to tell for one event of a program: a line of claude's stream, or a piece of output."""
    if not isinstance(payload, dict) or kind in _PARTS:
        return
    if kind in STREAMS:
        yield RunEvent(kind, _texts(payload.get("text")))
    elif kind in {"assistant", "user"}:
        yield from _message(kind, payload)
    elif kind == "result":
        is_deferred = payload.get("terminal_reason") == DEFERRED
        text = "Claude has stopped before this call." if is_deferred else text_of(payload)
        yield RunEvent(RESULT, _texts(text), _named(payload, _OF_RESULT))
    elif kind == "system":
        yield _system(payload)
    elif kind == "rate_limit_event":
        yield from _limit(payload.get("rate_limit_info"))
    else:
        yield RunEvent(STATUS, (), {"subtype": kind, **_named(payload, _OF_PROGRESS)})


def _message(role: str, event: dict[str, Any]) -> Iterator[RunEvent]:
    message = event.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    about = _named(event, {"parent_tool_use_id": "parentId", "error": "error"})
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for block in content if isinstance(content, list) else []:
        if not isinstance(block, dict):
            continue
        # Claude also runs tools of the model's API, whose blocks are called `server_tool_use` and the like.
        kind = str(block.get("type"))
        said, thought = _texts(block.get("text")), _texts(block.get("thinking"))
        if kind == "text" and said:
            yield RunEvent(MESSAGE, said, {"role": role, **about})
        elif kind == "thinking" and thought:
            yield RunEvent(THINKING, thought, about)
        elif kind.endswith("tool_use"):
            tool = str(block.get("name")).removeprefix(TOOL_PREFIX)
            call = {"id": block.get("id"), "tool": tool, "input": block.get("input")}
            yield RunEvent(TOOL_CALL, (tool,), {**call, **about})
        elif kind.endswith("tool_result"):
            answer = {"id": block.get("tool_use_id"), "isError": block.get("is_error") is True}
            yield RunEvent(TOOL_RESULT, _texts(block.get("content")), {**answer, **about})


def _texts(content: Any) -> tuple[str, ...]:
    """Return the texts of a message's content, which is one text or a list of blocks."""
    if isinstance(content, str):
        return (content,) if content else ()
    blocks = content if isinstance(content, list) else []
    texts = (block.get("text") for block in blocks if isinstance(block, dict))
    return tuple(text for text in texts if isinstance(text, str) and text)


def _system(event: dict[str, Any]) -> RunEvent:
    subtype = str(event.get("subtype"))
    sentence = _SENTENCES.get(subtype)
    texts = (sentence(event),) if sentence else ()
    return RunEvent(
        STATUS, texts, {"subtype": subtype, **_named(event, _OF_SYSTEM.get(subtype, {}))}
    )


def _limit(info: Any) -> Iterator[RunEvent]:
    """Tell of a usage limit that is reached or near. Claude also tells of limits that are far off."""
    if isinstance(info, dict) and info.get("status") != "allowed":
        text = f"The usage limit of the model's API is {info.get('status')}."
        yield RunEvent(STATUS, (text,), {"subtype": "usage_limit", **_named(info, _OF_LIMIT)})


def _named(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return those of the values that are there, under the names that the API's events have."""
    return {
        name: values[old] for old, name in names.items() if values.get(old) not in (None, "", [])
    }


_OF_RESULT = {
    "subtype": "subtype",
    "is_error": "isError",
    "num_turns": "numTurns",
    "duration_ms": "durationMs",
    "total_cost_usd": "costUsd",
    "terminal_reason": "terminalReason",
    "structured_output": "output",
}
_OF_LIMIT = {"status": "status", "resetsAt": "resetsAt", "rateLimitType": "kind"}
_OF_PROGRESS = {"tool_name": "tool", "elapsed_time_seconds": "seconds"}
_OF_SYSTEM: dict[str, dict[str, str]] = {
    "init": {"model": "model", "claude_code_version": "version"},
    "api_retry": {
        "attempt": "attempt",
        "max_retries": "maxRetries",
        "retry_delay_ms": "delayMs",
        "error_status": "errorStatus",
        "error": "error",
    },
    "permission_denied": {"tool_name": "tool", "tool_use_id": "id"},
    "model_fallback": {"original_model": "from", "fallback_model": "to"},
}
_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "init": lambda event: f"Claude begins, with the model {event.get('model')}.",
    "api_retry": lambda event: (
        f"The model's API failed ({whole(event.get('error_status'), 999) or event.get('error')}),"
        " and is called again."
    ),
    "permission_denied": lambda event: (
        f"The tool {event.get('tool_name')} was refused, because it needs a permission."
    ),
    "model_fallback": lambda event: f"Claude goes on with the model {event.get('fallback_model')}.",
    "compact_boundary": lambda _: "Claude has summed up the conversation so far.",
}
