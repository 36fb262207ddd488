"""Values to compare answers with: stand-ins that equal any well-formed id or time, and the bodies of errors."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testing.world.cast import Cast

NOT_FOUND = {"error": "Not found", "code": "not_found"}


class _Like:
    """A stand-in that equals every string of a given form."""

    def __init__(self, name: str, pattern: str) -> None:
        self._name, self._pattern = name, re.compile(pattern)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._pattern.fullmatch(other) is not None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._name}>"


AN_ID = _Like("a UUIDv7", r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
A_TIME = _Like("a time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
A_CURSOR = _Like("a cursor", r"[\w:-]+")


def a_token(prefix: str) -> _Like:
    """Returns a stand-in for any token with this prefix."""
    return _Like(f"a {prefix}_ token", rf"{prefix}_[0-9A-Za-z]{{49}}")


def invalid(fields: dict[str, list[str]] | None = None, *form: str) -> dict[str, Any]:
    """Returns the body of a 400 with exactly these errors."""
    return {
        "error": "Validation failed",
        "code": "validation_failed",
        "details": {"fieldErrors": fields or {}, "formErrors": list(form)},
    }


def page(*items: Any) -> dict[str, Any]:
    """Returns the body of a list that has these items and no further page."""
    return {"items": list(items), "nextCursor": None}


def shown_run(cast: "Cast", **changes: Any) -> dict[str, Any]:
    """A run of the cast's trigger that a person has just queued, as the API shows one run."""
    return {
        "id": AN_ID,
        "triggerId": str(cast.trigger_id),
        "triggerRevisionId": AN_ID,
        "triggerName": "Nightly report",
        "environmentId": str(cast.environment.id),
        "workerId": str(cast.worker.worker_id),
        "poolId": None,
        "status": "queued",
        "source": "manual",
        "attempt": 1,
        "retryOfRunId": None,
        "rerunOfRunId": None,
        "eventId": None,
        "scheduledFor": None,
        "availableAt": A_TIME,
        "startDeadlineAt": None,
        "queuedAt": A_TIME,
        "claimedAt": None,
        "startedAt": None,
        "endedAt": None,
        "durationMs": None,
        "exitCode": None,
        "shortMessage": None,
        "errorMessage": None,
        "faultClass": None,
        "willRetry": None,
        "model": None,
        "inputTokens": None,
        "outputTokens": None,
        "cacheReadTokens": None,
        "cacheCreationTokens": None,
        "costUsd": None,
        "numTurns": None,
        "sessionId": None,
        "cancelRequested": False,
        "payload": None,
        "payloadHidden": False,
        "toolCalls": None,
        "denials": None,
        "output": None,
        "lateResult": None,
        "prompt": "Report.",
        "mcpUrl": None,
        **changes,
    }


def shown_worker(cast: "Cast", **changes: Any) -> dict[str, Any]:
    """The cast's worker before its first call, as the API shows it."""
    return {
        "id": str(cast.worker.worker_id),
        "environmentId": str(cast.environment.id),
        "workspaceId": str(cast.workspace.id),
        "label": "host-1",
        "hostname": "host-1",
        "os": "linux",
        "version": "1.0.0",
        "authMode": "claude_max",
        "maxConcurrency": 1,
        "status": "offline",
        "derivedStatus": "offline",
        "currentRunId": None,
        "heldRuns": 0,
        "disabled": False,
        "approved": True,
        "limitedUntil": None,
        "poolIds": [],
        "lastSeenAt": None,
        "createdAt": A_TIME,
        **changes,
    }
