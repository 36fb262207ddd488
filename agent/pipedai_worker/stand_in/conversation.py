"""Writes the events of one conversation to stdout, with the fields that claude gives them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipedai_worker.stand_in.model import Usage, of_no_model

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
            "usage": self._turn.of_message(),
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
            "usage": of_no_model(),
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
