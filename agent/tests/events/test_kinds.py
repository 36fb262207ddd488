"""What claude and other programs write becomes events of a few types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .parts import Recording


def message(*blocks: Any, role: str = "assistant", **fields: Any) -> tuple[str, dict[str, Any]]:
    return role, {"type": role, "message": {"content": list(blocks)}, **fields}


CALL = {"type": "tool_use", "id": "t1", "name": "mcp__trigger__look_up", "input": {"day": 1}}
ANSWER = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "ok"}]}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            message({"type": "text", "text": "I begin."}, CALL),
            [
                ("message", "I begin.", {"role": "assistant"}),
                ("tool_call", "look_up", {"callId": "t1", "tool": "look_up", "input": {"day": 1}}),
            ],
        ),
        (
            message({"type": "thinking", "thinking": "Hm.", "signature": "x"}),
            [("thinking", "Hm.", None)],
        ),
        (message(ANSWER, role="user"), [("tool_result", "ok", {"callId": "t1", "isError": False})]),
        (
            message({**ANSWER, "content": "no", "is_error": True}, role="user"),
            [("tool_result", "no", {"callId": "t1", "isError": True})],
        ),
        (
            message({"type": "text", "text": "Go."}, role="user", parent_tool_use_id="t1"),
            [("message", "Go.", {"role": "user", "parentId": "t1"})],
        ),
        (
            ("user", {"message": {"content": "Go."}}),
            [("message", "Go.", {"role": "user"})],
        ),
        (
            ("system", {"subtype": "init", "model": "opus", "cwd": "/secret", "tools": ["Bash"]}),
            [
                (
                    "status",
                    "Claude begins, with the model opus.",
                    {"subtype": "init", "model": "opus"},
                )
            ],
        ),
        (
            ("system", {"subtype": "api_retry", "attempt": 1, "error_status": 529, "error": "x"}),
            [
                (
                    "status",
                    "The model's API failed (529), and is called again.",
                    {"subtype": "api_retry", "attempt": 1, "errorStatus": 529, "error": "x"},
                )
            ],
        ),
        (("system", {"subtype": "newer"}), [("status", None, {"subtype": "newer"})]),
        (
            ("tool_progress", {"tool_name": "Bash", "elapsed_time_seconds": 30}),
            [("status", None, {"subtype": "tool_progress", "tool": "Bash", "seconds": 30})],
        ),
        (("rate_limit_event", {"rate_limit_info": {"status": "allowed"}}), []),
        (
            ("rate_limit_event", {"rate_limit_info": {"status": "rejected", "resetsAt": 5}}),
            [
                (
                    "status",
                    "The usage limit of the model's API is rejected.",
                    {"subtype": "usage_limit", "status": "rejected", "resetsAt": 5},
                )
            ],
        ),
        (
            ("result", {"subtype": "success", "is_error": False, "num_turns": 2, "result": "Done"}),
            [("result", "Done", {"subtype": "success", "isError": False, "numTurns": 2})],
        ),
        (
            ("result", {"terminal_reason": "tool_deferred", "result": ""}),
            [
                (
                    "result",
                    "Claude has stopped before this call.",
                    {"terminalReason": "tool_deferred"},
                )
            ],
        ),
        (("stream_event", {"event": {"delta": {"text": "I be"}}}), []),
        (("stderr", {"text": "a warning\n"}), [("stderr", "a warning\n", None)]),
        (("unknown", {"no": "type"}), [("status", None, {"subtype": "unknown"})]),
        (("assistant", {"message": "nonsense"}), []),
        (("assistant", "nonsense"), []),
        (message("nonsense", {"type": "text"}, {"type": "newer"}), []),
        (message({"type": "thinking", "thinking": "", "signature": "x"}), []),
        (
            message({**CALL, "type": "server_tool_use", "name": "web_search"}),
            [
                (
                    "tool_call",
                    "web_search",
                    {"callId": "t1", "tool": "web_search", "input": {"day": 1}},
                )
            ],
        ),
    ],
)
def test_an_event_of_claude_is_told(
    tmp_path: Path, event: tuple[str, Any], told: list[tuple[Any, ...]]
) -> None:
    recorded = Recording(tmp_path).told(*event)
    assert [(each["type"], each["text"], each["data"]) for each in recorded] == told
    assert [each["seq"] for each in recorded] == list(range(1, len(told) + 1))
