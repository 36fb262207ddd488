"""Writes the events of one conversation, with the fields that claude gives them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pipedai_worker.stand_in.usage import Usage, of_no_model

SYNTHETIC = "<synthetic>"
# What else is there in an `init`: nothing of it means anything here.
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
# What else is there in a result.
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
    """One conversation with a model, whose turns each begin with `begin` and end with `result`."""

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
        """Tell whether the model has said anything in this turn."""
        return bool(self._turn.messages)

    def event(self, kind: str, **fields: Any) -> None:
        """Write one event."""
        line = {"type": kind, **fields, "session_id": self.session_id, "uuid": str(uuid.uuid4())}
        print(json.dumps(line), flush=True)

    def system(self, subtype: str, **fields: Any) -> None:
        """Write an event of claude itself."""
        self.event("system", subtype=subtype, **fields)

    def begin(self, tools: Sequence[str], servers: Mapping[str, Any]) -> None:
        """Begin a turn. `servers` is what is told of MCP servers: `mcp_servers`, or nothing."""
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
        """Write a message of the model."""
        self._speak({"type": "text", "text": text})

    def call(self, name: str, arguments: Mapping[str, Any], **more: Any) -> str:
        """Write the model's call of a tool, and return its id."""
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
            "usage": self._turn.of_message(),
            "content": [block],
            "context_management": None,
        }
        self._write("assistant", message, request_id=f"req_{uuid.uuid4().hex[:20]}", **more)
        if not self._limit_told and not os.environ.get("ANTHROPIC_API_KEY"):
            self._limit_told = True
            self.limit("allowed")

    def answer(self, number: str, content: Any, *, told: Any, how: Any, **more: Any) -> None:
        """Write the result of a call: `told` is what the tool itself told, `how` how it was permitted."""
        block = {"type": "tool_result", "tool_use_id": number, "content": content, **more}
        self._hear(block, tool_use_result=told, tool_result_meta=[{"id": number, **how}])

    def deny(self, number: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Write that a call is not permitted, and its result."""
        why = f"{name} needs a permission, and nobody is there to give it."
        self._denials.append({"tool_name": name, "tool_use_id": number, "tool_input": arguments})
        self.system("permission_denied", tool_name=name, tool_use_id=number, message=why)
        how = {"decision": "reject", "source": "config"}
        refused = {"non_execution_kind": "user-rejected", "permission_decision": how}
        self.answer(number, why, told=f"Error: {why}", how=refused, is_error=True)

    def interrupted(self, text: str) -> None:
        """Write that somebody has stopped the conversation."""
        self._hear({"type": "text", "text": text})

    def _hear(self, block: Mapping[str, Any], **more: Any) -> None:
        self._answers += 1
        self._write("user", {"role": "user", "content": [block]}, **more)

    def _write(self, kind: str, message: Mapping[str, Any], **more: Any) -> None:
        now = datetime.now(tz=timezone.utc).isoformat(timespec="milliseconds")
        timestamp = now.replace("+00:00", "Z")
        self.event(kind, message=message, parent_tool_use_id=None, timestamp=timestamp, **more)

    def limit(self, status: str, **info: Any) -> None:
        """Write what the model's API says of the usage limit of a subscription."""
        told = {"status": status, "isUsingOverage": False, **info}
        self.event("rate_limit_event", rate_limit_info=told)

    def complain(self, error: str, text: str, **fields: Any) -> None:
        """Write the message in which claude says that the model's API has failed."""
        message = {
            **dict.fromkeys(("container", "context_management", "diagnostics", "stop_details")),
            "id": str(uuid.uuid4()),
            "type": "message",
            "role": "assistant",
            "model": SYNTHETIC,
            "stop_reason": "stop_sequence",
            "stop_sequence": "",
            "usage": of_no_model(),
            "content": [{"type": "text", "text": text}],
        }
        self._write("assistant", message, error=error, is_api_error_message=True, **fields)

    def result(
        self, subtype: str, *, reason: str, stop: str | None, is_error: bool = False, **more: Any
    ) -> int:
        """End a turn, and return the exit code that belongs to it.

        `reason` is the `terminal_reason`, `stop` how the model's last message ended; both as claude names them.
        """
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

    def retry(self, status: int | None, error: str, attempt: int, most: int) -> None:
        """Write that the model's API has failed and is going to be called again."""
        self.system(
            "api_retry",
            attempt=attempt,
            max_retries=most,
            retry_delay_ms=500 * 2 ** (attempt - 1),
            error_status=status,
            error=error,
        )
