"""Takes a run's events as the real API does: in order, once, within its bounds."""

from __future__ import annotations

import json
from typing import Any

from pipedai_worker.conformance.fake_run import FakeRun

MOST_IN_A_CALL = 500
MOST_BYTES_IN_A_CALL = 256 * 1024
MOST_EVENTS = 20_000
MOST_BYTES = 5 * 1024 * 1024
LONGEST_TYPE = 64


def problem(body: dict[str, Any]) -> str | None:
    """Return a sentence that says why the API would answer this call with 400; None if it would not."""
    events = body.get("events")
    if not isinstance(events, list) or len(events) > MOST_IN_A_CALL:
        return f"events is no list of at most {MOST_IN_A_CALL}"
    if size(body) > MOST_BYTES_IN_A_CALL:
        return f"the events have more than {MOST_BYTES_IN_A_CALL} bytes"
    for event in events:
        kind, text = event.get("type"), event.get("text")
        if not isinstance(kind, str) or not 1 <= len(kind) <= LONGEST_TYPE:
            return f"type {kind!r} is no text of 1 to {LONGEST_TYPE} characters"
        if text is not None and not isinstance(text, str):
            return "text is no text"
        if type(event.get("seq")) is not int or not isinstance(event.get("at"), str):
            return "an event lacks its seq or its time"
    return None


def take(run: FakeRun, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Add those events to the run that it has not got yet, and return the status and the answer."""
    if not run.record_events:
        return 409, {"error": "The run's trigger records no events.", "code": "events_off"}
    for event in body["events"]:
        expected = len(run.events) + 1
        if event["seq"] > expected:
            sentence = f"Event {expected} is missing."
            return 409, {"error": sentence, "code": "event_gap", "nextSeq": expected}
        if event["seq"] == expected:
            run.events.append(event)
    return 200, {"nextSeq": len(run.events) + 1}


def size(value: Any) -> int:
    """Return how many bytes the JSON has, written compactly in UTF-8."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
