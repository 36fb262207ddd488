"""A tool call as a worker reports it, and as the API shows it."""

from typing import Any

CALL = {
    "at": "2026-05-04T12:00:01.000Z",
    "tool": "send_mail",
    "durationMs": 12,
    "outcome": "ok",
    "effect": "possible",
    "callId": "toolu_01",
}


def shown(call: dict[str, Any]) -> dict[str, Any]:
    return {"startedAt" if name == "at" else name: value for name, value in call.items()}
