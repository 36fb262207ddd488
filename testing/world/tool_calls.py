"""A tool call as a worker reports it."""

CALL = {
    "at": "2026-05-04T12:00:01.000Z",
    "tool": "send_mail",
    "durationMs": 12,
    "outcome": "ok",
    "effect": "possible",
}
