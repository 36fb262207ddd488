"""What the API answers about rows of the cast that have just been made."""

from typing import Any

from testing.probes.shapes import A_TIME, AN_ID
from testing.world.cast import Cast


def shown_run(cast: Cast, **changes: Any) -> dict[str, Any]:
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
        "nothingNew": False,
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
        "phases": [{"phase": "queued", "from": A_TIME, "to": None}],
        "previousRunId": None,
        "nextRunId": None,
        "prompt": "Report.",
        "mcpUrl": None,
        **changes,
    }


def shown_worker(cast: Cast, **changes: Any) -> dict[str, Any]:
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
        "problems": [],
        "poolIds": [],
        "lastSeenAt": None,
        "createdAt": A_TIME,
        **changes,
    }
