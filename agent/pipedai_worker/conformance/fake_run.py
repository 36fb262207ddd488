"""Defines one run of the fake API, and the JSON in which the API's answers show it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

LONGEST_OUTPUT = 64 * 1024  # bytes
TERMINAL = {"succeeded", "failed", "timed_out", "canceled"}
# What the decision on a gated call repeats of the call.
_OF_A_DECISION = ("approvalId", "tool", "argumentsHash", "toolSchemaHash")


@dataclass
class FakeRun:
    prompt: str = "Say hello."
    id: str = field(default_factory=lambda: str(uuid4()))
    mcp_url: str = "https://mcp.example.com/mcp"
    # The headers that the run's trigger has at present, and in how many seconds they expire; None if they do not.
    mcp_headers: dict[str, str] = field(default_factory=dict)
    headers_expire_in: float | None = None
    model: str | None = None
    timeout_seconds: float = 60
    payload: Any = None
    attempt: int = 1
    output_schema: Any = None
    retry_after_effects: bool = True
    record_events: str = "failures"
    retry_mode: str = "restart"
    resume_session_id: str | None = None
    max_cost_usd: Any = None
    # The rules on calls that a person must approve, as `rules` of the hand-out has them; None if there are none.
    rules: list[dict[str, Any]] | None = None
    allow_host_tools: bool = False
    # These fields are added to the run when it is handed out, as a newer version of the API might do.
    newer: dict[str, Any] = field(default_factory=dict)
    # These fields are added to the answer to a claim of the run, and override what a poll said.
    claimed_as: dict[str, Any] = field(default_factory=dict)
    # What the answer to the run's report says of how long its session can be resumed. "" leaves the field out.
    resume_until: str | None = ""
    # If this is a status, another worker claims the run after it was handed out, and the claim is refused with that
    # status: 409 if the worker under test is in the run's pool, 404 if it is not.
    lost_to_another: int | None = None
    status: str = "queued"
    claim_id: str | None = None
    cancel_requested: bool = False
    outcome: dict[str, Any] | None = None
    # How many calls of a tool the run's own MCP server has taken.
    calls_taken: int = 0
    # The call for which the run waits or has waited last, as it was reported, with an `approvalId`.
    approval: dict[str, Any] | None = None
    # What was decided on it, as the hand-out has it; None while nobody has.
    decision: dict[str, Any] | None = None
    # How often the worker has used an approval up.
    spent: int = 0
    # The counts of tool calls that the worker told last; None if it told none.
    tool_calls: dict[str, int] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    # When the run's lease was last renewed (monotonic clock), and the longest time between two renewals, in seconds.
    renewed_at: float = 0.0
    longest_silence: float = 0.0

    def handed_out(self) -> dict[str, Any]:
        gates = {
            "rules": self.rules,
            "allowHostTools": self.allow_host_tools,
            "decision": self.decision,
        }
        return {
            "id": self.id,
            "triggerId": str(uuid4()),
            "triggerName": "Nightly report",
            "prompt": self.prompt,
            "mcpUrl": self.mcp_url,
            "mcpHeaders": self.mcp_headers,
            "headersExpireAt": self.expires_at(),
            "model": self.model,
            "timeoutSeconds": self.timeout_seconds,
            "payload": self.payload,
            "attempt": self.attempt,
            "outputSchema": self.output_schema,
            "retryAfterEffects": self.retry_after_effects,
            "recordEvents": self.record_events,
            "retryMode": self.retry_mode,
            "resumeSessionId": self.resume_session_id,
            "maxCostUsd": self.max_cost_usd,
            **({} if self.rules is None else {"approvals": gates}),
            "queuedAt": now().isoformat(),
            "somethingNewer": True,
            **self.newer,
        }

    def expires_at(self) -> str | None:
        left = self.headers_expire_in
        return None if left is None else iso(now() + timedelta(seconds=left))

    def has_waited(self) -> bool:
        """Return whether the last report of the run was that it waits, and no worker has claimed it since."""
        return self.status == "queued" and self.approval is not None

    def shown(self) -> dict[str, Any]:
        """Return the run as the answer to a claim, start, heartbeat or complete shows it."""
        shown = {"id": self.id, "status": self.status, "cancelRequested": self.cancel_requested}
        return shown if self.resume_until == "" else {**shown, "resumeUntil": self.resume_until}

    def decide(self, decision: str, reason: str) -> None:
        call = {name: (self.approval or {})[name] for name in _OF_A_DECISION}
        self.decision = {**call, "decision": decision, "reason": reason}

    def take_events(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Add those events that the run has not got yet, and return the status and the answer."""
        failed = self.record_events == "failures" and self.status in TERMINAL - {"succeeded"}
        if self.record_events != "always" and not failed:
            return 409, {"error": "The run's trigger records no events.", "code": "events_off"}
        for event in body["events"]:
            expected = len(self.events) + 1
            if event["seq"] > expected:
                sentence = f"Event {expected} is missing."
                return 409, {"error": sentence, "code": "event_gap", "nextSeq": expected}
            if event["seq"] == expected:
                self.events.append(event)
        return 200, {"nextSeq": len(self.events) + 1}

    def settled(self, body: dict[str, Any]) -> str:
        """Return the status that a report gives the run. A success whose required output is missing is a failure."""
        if body["status"] != "succeeded" or self.output_schema is None:
            return str(body["status"])
        output = json.dumps(body.get("output"), ensure_ascii=False, separators=(",", ":"))
        fits = "output" in body and len(output.encode("utf-8", "replace")) <= LONGEST_OUTPUT
        return "succeeded" if fits else "failed"

    def renew(self) -> None:
        moment = time.monotonic()
        if self.renewed_at:
            self.longest_silence = max(self.longest_silence, moment - self.renewed_at)
        self.renewed_at = moment


def now() -> datetime:
    return datetime.now(timezone.utc)


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
