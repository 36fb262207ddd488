"""Writes the events of one conversation as claude does, and makes up what claude would tell of a model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple


def sample(schema: Any) -> Any:
    """Return a value of the type that the schema asks for, with every property that the schema lists."""
    schema = schema if isinstance(schema, dict) else {}
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: sample(each) for name, each in (schema.get("properties") or {}).items()}
    simple = {"array": [], "string": "scripted", "integer": 1, "number": 1, "boolean": True}
    return simple.get(kind)


# The tokens that each message of the model is said to use. The constant below them is its cost in US dollars.
INPUT, OUTPUT, CACHE_READ, CACHE_CREATION = 12, 34, 56, 78
_OF_MESSAGE = {
    "input_tokens": INPUT,
    "output_tokens": OUTPUT,
    "cache_read_input_tokens": CACHE_READ,
    "cache_creation_input_tokens": CACHE_CREATION,
}
COST_USD = 0.0123


class Usage:
    """The tokens and the cost of `messages` messages of the model, which all count the same."""

    messages = 0

    @property
    def cost(self) -> float:
        return round(self.messages * COST_USD, 6)

    def of_result(self) -> dict[str, Any]:
        """Return the field `usage` of a `result` event, which adds up all the messages."""
        return {
            **{name: self.messages * each for name, each in _OF_MESSAGE.items()},
            **_DETAILS,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
            "inference_geo": "",
            "iterations": [],
            "speed": "standard",
        }

    def of_model(self, model: str) -> dict[str, Any]:
        """Return the field `modelUsage` of a `result` event. It is empty if there was no message."""
        if not self.messages:
            return {}
        usage = {
            "inputTokens": self.messages * INPUT,
            "outputTokens": self.messages * OUTPUT,
            "cacheReadInputTokens": self.messages * CACHE_READ,
            "cacheCreationInputTokens": self.messages * CACHE_CREATION,
            "cacheCreationEphemeral1hInputTokens": 0,
            "cacheCreationEphemeral5mInputTokens": 0,
            "thinkingTokens": 0,
            "webSearchRequests": 0,
            "costUSD": self.cost,
            "contextWindow": 200_000,
            "maxOutputTokens": 32_000,
            "canonicalModel": model,
            "provider": "standIn",
            "costBasis": "list",
        }
        return {model: usage}


_DETAILS = {
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
    "fallback_credit": None,
}
# The field `usage` of a message that claude itself wrote, without a model.
_OF_NO_MODEL = {
    **dict.fromkeys(_OF_MESSAGE, 0),
    **_DETAILS,
    **dict.fromkeys(
        ("output_tokens_details", "service_tier", "inference_geo", "iterations", "speed")
    ),
}


CUT = "cut"


class ApiError(NamedTuple):
    """A failure of the model's API. `status` is None without an answer; `kind` is claude's word, `type` the API's."""

    status: int | None
    kind: str
    type: str | None
    # The kind of error that the real claude names in its event `api_retry`; None for an error after which it does not
    # call the API again. The field `retries`, below, is how often it does; None means as often as its settings allow.
    retried_as: str | None = None
    retries: int | None = None
    reason: str = "api_error"

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields that claude's message and result have about the failure, besides its kind."""
        if self.status is None:
            return {"api_error": "connection_failed"}
        return {"api_error_status": self.status, "api_error_type": self.type}


_NAMED = {
    401: ApiError(401, "authentication_failed", "authentication_error", "authentication_failed", 2),
    403: ApiError(403, "authentication_failed", "permission_error"),
    404: ApiError(404, "model_not_found", "not_found_error"),
    413: ApiError(413, "invalid_request", "request_too_large", reason="image_error"),
    429: ApiError(429, "rate_limit", "rate_limit_error", "rate_limit"),
    529: ApiError(529, "server_error", "overloaded_error", "overloaded"),
}


def api_error_of(what: str) -> ApiError:
    """Return the failure with this HTTP status, or for `cut` that of a connection that is cut. Raises ValueError."""
    if what == CUT:
        return ApiError(None, "server_error", None, "unknown")
    status = int(what)
    if status in _NAMED:
        return _NAMED[status]
    if status >= 500:
        return ApiError(status, "server_error", "api_error", "server_error")
    return ApiError(status, "unknown", "invalid_request_error")


SYNTHETIC = "<synthetic>"
# The other fields of an `init` event. The stand-in gives them values that mean nothing.
_INIT: dict[str, Any] = {
    "additional_directories": [],
    "agents": [],
    "capabilities": [],
    "plugins": [],
    "skills": [],
    "slash_commands": [],
    "terminal_slash_commands": [],
    **dict.fromkeys(("analytics_disabled", "product_feedback_disabled"), True),
    **dict.fromkeys(("per_turn_effort_active", "sandbox_enabled", "served_by_anthropic"), False),
    **dict.fromkeys(("ultrathink_available", "ultrathink_typed_raises"), False),
    "fast_mode_disabled_reason": "stand_in",
    "fast_mode_state": "off",
    "output_style": "default",
    "permissionMode": "default",
    "view_mode": "default",
}
# The other fields of a `result` event. The stand-in gives them values that mean nothing.
_RESULT: dict[str, Any] = {
    "fast_mode_disabled_reason": "stand_in",
    "fast_mode_state": "off",
    "queued_turn_count": 0,
    "safety_stops": 0,
    "subagent_stats": {
        **dict.fromkeys(("completed", "failed", "max_depth", "spawned", "spawned_by_subagents"), 0),
        "started_in_background": 0,
        "by_type": {},
        "killed": {"parent": 0, "system": 0, "user": 0},
        "refused": {"budget": 0, "concurrency_limit": 0, "depth_limit": 0},
        "requested": {"background": 0, "foreground": 0, "unset": 0},
    },
}
_TIMES = ("first_content_frame_ms", "time_to_request_ms", "ttft_ms", "ttft_stream_ms")


class Conversation:
    """A conversation of claude with a model, as events on stdout. A turn goes from `init` to `result`."""

    def __init__(self, session_id: str, model: str, version: str) -> None:
        self.session_id = session_id
        self.model = model
        self._version = version
        self._turn, self._whole = Usage(), Usage()
        self._answers = self._results = 0
        self._denials: list[dict[str, Any]] = []
        self._limit_told = False

    @property
    def has_spoken(self) -> bool:
        return bool(self._turn.messages)

    def event(self, kind: str, **fields: Any) -> None:
        line = {"type": kind, **fields, "session_id": self.session_id, "uuid": str(uuid.uuid4())}
        print(json.dumps(line), flush=True)

    def system(self, subtype: str, **fields: Any) -> None:
        self.event("system", subtype=subtype, **fields)

    def begin(self, tools: Sequence[str], servers: Mapping[str, Any]) -> None:
        """Begin a turn by writing an `init` event. `servers` holds the event's field `mcp_servers`, or is empty."""
        self._turn, self._answers, self._denials = Usage(), 0, []
        directory = os.getcwd()  # noqa: PTH109
        key = "ANTHROPIC_API_KEY" if os.environ.get("ANTHROPIC_API_KEY") else "none"
        self.system(
            "init",
            cwd=directory,
            original_cwd=directory,
            model=self.model,
            tools=list(tools),
            apiKeySource=key,
            claude_code_version=self._version,
            **servers,
            **_INIT,
        )

    def say(self, text: str) -> None:
        self._speak({"type": "text", "text": text})

    def think(self, text: str) -> None:
        self._speak({"type": "thinking", "thinking": text, "signature": ""})

    def call(self, name: str, arguments: Mapping[str, Any], **more: Any) -> str:
        """Write an event with a message in which the model calls a tool. Return the id of the call."""
        number = f"toolu_{uuid.uuid4().hex[:24]}"
        if more:
            more = {"tool_use_meta": [{"id": number, **more}]}
        self._speak({"type": "tool_use", "id": number, "name": name, "input": arguments}, **more)
        return number

    def _speak(self, block: Mapping[str, Any], **more: Any) -> None:
        self._turn.messages += 1
        self._whole.messages += 1
        message = {
            "id": f"msg_{uuid.uuid4().hex[:24]}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _OF_MESSAGE,
            "content": [block],
            "context_management": None,
        }
        self._write("assistant", message, request_id=f"req_{uuid.uuid4().hex[:20]}", **more)
        if not self._limit_told and not os.environ.get("ANTHROPIC_API_KEY"):
            self._limit_told = True
            self.limit("allowed")

    def answer(self, number: str, content: Any, *, returned: Any, how: Any, **more: Any) -> None:
        """`content` is what the model gets, `returned` what the tool returned, and `how` how it was permitted."""
        block = {"type": "tool_result", "tool_use_id": number, "content": content, **more}
        self._hear(block, tool_use_result=returned, tool_result_meta=[{"id": number, **how}])

    def deny(self, number: str, name: str, arguments: Mapping[str, Any], why: str = "") -> None:
        """Write an event that says that a tool call is not permitted, and an event with an error as its result."""
        why = why or f"{name} needs a permission, and nobody is there to give it."
        self._denials.append({"tool_name": name, "tool_use_id": number, "tool_input": arguments})
        self.system("permission_denied", tool_name=name, tool_use_id=number, message=why)
        how = {"decision": "reject", "source": "config"}
        refused = {"non_execution_kind": "user-rejected", "permission_decision": how}
        self.answer(number, why, returned=f"Error: {why}", how=refused, is_error=True)

    def interrupted(self, text: str) -> None:
        self._hear({"type": "text", "text": text})

    def _hear(self, block: Mapping[str, Any], **more: Any) -> None:
        self._answers += 1
        self._write("user", {"role": "user", "content": [block]}, **more)

    def _write(self, kind: str, message: Mapping[str, Any], **more: Any) -> None:
        now = datetime.now(tz=timezone.utc).isoformat(timespec="milliseconds")
        timestamp = now.replace("+00:00", "Z")
        self.event(kind, message=message, parent_tool_use_id=None, timestamp=timestamp, **more)

    def limit(self, status: str, **info: Any) -> None:
        """Write an event with what the model's API says of the usage limit of a subscription."""
        limit = {"status": status, "isUsingOverage": False, **info}
        self.event("rate_limit_event", rate_limit_info=limit)

    def complain(self, error: str, text: str, **fields: Any) -> None:
        """Write an event with the message in which claude says that the model's API has failed."""
        message = {
            **dict.fromkeys(("container", "context_management", "diagnostics", "stop_details")),
            "id": str(uuid.uuid4()),
            "type": "message",
            "role": "assistant",
            "model": SYNTHETIC,
            "stop_reason": "stop_sequence",
            "stop_sequence": "",
            "usage": _OF_NO_MODEL,
            "content": [{"type": "text", "text": text}],
        }
        self._write("assistant", message, error=error, is_api_error_message=True, **fields)

    def result(
        self, subtype: str, *, reason: str, stop: str | None, is_error: bool = False, **more: Any
    ) -> int:
        """Return claude's exit code. `reason` is the event's `terminal_reason`, `stop` its `stop_reason`."""
        if subtype == "success":
            more = {"api_error_status": None, **more}
            if not is_error:
                more.update(dict.fromkeys(_TIMES, 1))
        self.event(
            "result",
            subtype=subtype,
            is_error=is_error,
            duration_ms=1200,
            duration_api_ms=1000,
            num_turns=max(1, self._turn.messages + (self._answers if is_error else 0)),
            total_cost_usd=self._whole.cost,
            usage=self._turn.of_result(),
            modelUsage=self._whole.of_model(self.model),
            model_usage_since_last_result=self._turn.of_model(self.model),
            permission_denials=self._denials,
            terminal_reason=reason,
            stop_reason=stop,
            result_index=self._results,
            **_RESULT,
            **more,
        )
        self._results += 1
        return int(is_error)

    def refuse(self, why: str) -> int:
        """Write the `result` event of a session that can't be resumed. Return the exit code of claude after it."""
        self.event(
            "result",
            subtype="error_during_execution",
            is_error=True,
            duration_ms=1,
            duration_api_ms=0,
            num_turns=0,
            stop_reason=None,
            total_cost_usd=0,
            usage=Usage().of_result(),
            modelUsage={},
            permission_denials=[],
            errors=[why],
            result_index=0,
            fast_mode_state="off",
        )
        return 1

    def retry(self, status: int | None, error: str, attempt: int, most: int) -> None:
        self.system(
            "api_retry",
            attempt=attempt,
            max_retries=most,
            retry_delay_ms=500 * 2 ** (attempt - 1),
            error_status=status,
            error=error,
        )


class StoredSession:
    """The file of one session, where claude keeps it. Nothing is written if `stored` is false."""

    def __init__(self, session_id: str, *, stored: bool) -> None:
        directory = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")  # noqa: PTH111
        work = re.sub(r"[^a-zA-Z0-9]", "-", os.getcwd())  # noqa: PTH109
        self._path = Path(directory, "projects", work, f"{session_id}.jsonl")
        self._stored = stored

    def exists(self) -> bool:
        return self._path.is_file()

    def lines(self) -> list[str] | None:
        with contextlib.suppress(FileNotFoundError):
            stored: list[str] = self._last()["lines"]
            return stored
        return None

    def is_deferred(self) -> bool:
        """Tell whether the session ends with a tool call that was deferred."""
        return bool(self._last()["deferred"])

    def _last(self) -> dict[str, Any]:
        last: dict[str, Any] = json.loads(self._path.read_text().splitlines()[-1])
        return last

    def store(self, lines: list[str], *, deferred: bool = False) -> None:
        if self._stored:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps({"lines": lines, "deferred": deferred}) + "\n")
