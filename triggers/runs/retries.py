"""Queues retries of runs that failed through the fault of infrastructure (SPEC §6).

A retry is a new run. It is queued in the transaction that ended the run that it repeats.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all
from triggers.runs import statements as sql
from triggers.states import FaultClass, Status

# How long a retry waits before it comes due: the second attempt, the third, and every later one (SPEC §6).
BACKOFF = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
MAX_RETRY_AFTER_SECONDS = 24 * 3600

_LOCK_TRIGGERS = "SELECT id FROM trigger WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE"


def lock_triggers(trigger_ids: Iterable[UUID]) -> None:
    """Locks triggers against changes until the transaction ends, so that a retry goes to the trigger's present worker.

    Call it before anything locks the triggers' runs: triggers come before runs in the order of locks
    (docs/architecture.md).
    """
    fetch_all(_LOCK_TRIGGERS, {"ids": sorted(set(trigger_ids))})


class NoRetry(StrEnum):
    """Why an ended run has no retry (SPEC §6, §18)."""

    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    # The prompt, the model or a limit of the trigger is to blame, so another attempt would probably end in the same
    # way.
    CLIENT_FAULT = "client_fault"
    # Somebody asked to cancel the run, which then ended in another way.
    CANCEL_REQUESTED = "cancel_requested"
    RETRIES_USED = "retries_used"
    # The run's tool calls may have changed something, and its trigger forbids retries of such runs.
    HAD_EFFECTS = "had_effects"
    TRIGGER_DELETED = "trigger_deleted"
    TRIGGER_DISABLED = "trigger_disabled"


def why_no_retry(run: Row) -> NoRetry | None:
    """Returns why an ended run gets no retry, or None if it gets one. It decides by the run and its trigger."""
    if reason := why_not_repeated(run):
        return reason
    if run["trigger_deleted_at"] is not None:
        return NoRetry.TRIGGER_DELETED
    return None if run["trigger_enabled"] else NoRetry.TRIGGER_DISABLED


def why_not_repeated(run: Row) -> NoRetry | None:
    """Returns why an ended run must not be repeated, whether its trigger is enabled or not, or None if it may be.

    HAD_EFFECTS is returned only if there is no other reason.
    """
    if run["status"] == Status.SUCCEEDED:
        return NoRetry.SUCCEEDED
    if run["status"] == Status.CANCELED:
        return NoRetry.CANCELED
    if run["fault_class"] != FaultClass.INFRA:
        return NoRetry.CLIENT_FAULT
    if run["cancel_requested_at"] is not None:
        return NoRetry.CANCEL_REQUESTED
    if run["attempt"] > run["max_retries"]:
        return NoRetry.RETRIES_USED
    return NoRetry.HAD_EFFECTS if _effects_forbid(run) else None


def stopped_by_effects(run: Row) -> bool:
    """Returns whether an ended run gets no retry for the sole reason that its tool calls may have changed something
    (SPEC §18).
    """
    return why_not_repeated(run) is NoRetry.HAD_EFFECTS


def _effects_forbid(run: Row) -> bool:
    """Returns whether the trigger forbids retries of runs whose tool calls may have changed something, and this is such
    a run.

    If the worker reported no counts of tool calls, a run that was started counts as such a run, and a run that was
    never started does not.
    """
    if run["retry_after_effects"]:
        return False
    if run["tool_calls_total"] is None:
        return run["started_at"] is not None
    return bool(run["tool_calls_effects"] or run["tool_calls_unknown"])


def create_retries(ended: Iterable[Row], *, retry_after_seconds: int | None = None) -> list[Row]:
    """Queues a retry of each ended run that needs one. `lock_triggers` must have locked the triggers.

    The retry comes due after the waiting time for its attempt, or after `retry_after_seconds` if that is longer.
    Returns `id`, `environment_id`, `worker_id`, `attempt`, `available_at` and `retry_of_id` of each new run. A run
    whose trigger is disabled or deleted gets no retry, nor does a run that already has one. It takes two statements at
    most.
    """
    runs = [run for run in ended if why_no_retry(run) is None]
    if not runs:
        return []
    retries = fetch_all(
        sql.QUEUE_RETRIES,
        {
            "ids": [new_id() for _ in runs],
            "run_ids": [run["id"] for run in runs],
            "delays": [_delay(run["attempt"], retry_after_seconds) for run in runs],
        },
    )
    if retries:
        execute(sql.COPY_PAYLOADS, {"ids": [retry["id"] for retry in retries]})
    return retries


def _delay(attempt: int, retry_after_seconds: int | None) -> timedelta:
    return max(BACKOFF[min(attempt, len(BACKOFF)) - 1], timedelta(seconds=retry_after_seconds or 0))


def retry_events(retries: Sequence[Row]) -> list[Event]:
    """Returns the events for new retries. Each is about the new run, and its actor is the system."""
    return [
        Event(
            "run.retried",
            SYSTEM,
            retry["environment_id"],
            "run",
            retry["id"],
            {
                "retryOf": str(retry["retry_of_id"]),
                "attempt": retry["attempt"],
                "availableAt": iso_time(retry["available_at"]),
            },
        )
        for retry in retries
    ]
