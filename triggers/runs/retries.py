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
from triggers.runs.pools import is_member
from triggers.states import EndedBy, FaultClass, RetryMode, Status

# How long a retry waits before it comes due: the second attempt, the third, and every later one (SPEC §6).
BACKOFF = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
MAX_RETRY_AFTER_SECONDS = 24 * 3600
# How many attempts of a run may end at usage limits, before the run fails for good (SPEC §16).
MAX_LIMIT_RETRIES = 50

_LOCK_TRIGGERS = "SELECT id FROM trigger WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE"


def lock_triggers(trigger_ids: Iterable[UUID]) -> None:
    """Locks triggers against changes until the transaction ends, so that a retry goes to the trigger's present worker.

    Call it before anything locks the triggers' runs: triggers come before runs in the order of locks
    (docs/architecture.md).
    """
    fetch_all(_LOCK_TRIGGERS, {"ids": sorted(set(trigger_ids))})


class NoRetry(StrEnum):
    """Why an ended run has no retry (SPEC §6, §16, §18)."""

    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    # The prompt, the model or a limit of the trigger is to blame, so another attempt would probably end in the same
    # way.
    CLIENT_FAULT = "client_fault"
    # Somebody asked to cancel the run, which then ended in another way.
    CANCEL_REQUESTED = "cancel_requested"
    RETRIES_USED = "retries_used"
    # No worker claimed the run before its start deadline.
    START_DEADLINE = "start_deadline"
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
    if run["ended_by"] == EndedBy.START_DEADLINE:
        return NoRetry.START_DEADLINE
    if run["ended_by"] == EndedBy.HAD_EFFECTS:
        return NoRetry.HAD_EFFECTS
    if _retries_are_used(run):
        return NoRetry.RETRIES_USED
    return NoRetry.HAD_EFFECTS if _effects_forbid(run) else None


def _retries_are_used(run: Row) -> bool:
    """Returns whether the run may have no further retry. Attempts that ended at a usage limit are counted by
    themselves.
    """
    if run["at_limit"]:
        return bool(run["limit_retries"] >= MAX_LIMIT_RETRIES)
    return bool(run["attempt"] - run["limit_retries"] > run["max_retries"])


def stopped_by_effects(run: Row) -> bool:
    """Returns whether an ended run gets no retry for the sole reason that its tool calls may have changed something
    (SPEC §18).
    """
    return why_not_repeated(run) is NoRetry.HAD_EFFECTS


def can_resume(run: Row) -> bool:
    """Returns whether a retry of an ended run is to continue the run's session: its trigger says so, the session is
    known, and the run's worker is still the trigger's, or in its pool. A worker that was deregistered is neither.
    """
    return (
        run["retry_mode"] == RetryMode.RESUME
        and run["session_id"] is not None
        and run["worker_id"] is not None
        and (run["trigger_worker_id"] == run["worker_id"] or _worker_is_in_pool(run))
    )


def _worker_is_in_pool(run: Row) -> bool:
    """Returns whether the worker of an ended run is in the pool of the run's trigger.

    It reads this once for a run, and notes it in the row. The statements that end runs don't read it, because few runs
    need it.
    """
    if "worker_is_in_pool" not in run:
        run["worker_is_in_pool"] = is_member(run["trigger_pool_id"], run["worker_id"])
    return bool(run["worker_is_in_pool"])


def may_have_had_effects(run: Row) -> bool:
    """Returns whether tool calls of an ended run, or of the session that it continued, may have changed something.

    If the worker reported no counts of tool calls, a run that was started counts as such a run, and a run that was
    never started does not.
    """
    if run["had_effects"]:
        return True
    if run["tool_calls_total"] is None:
        return run["started_at"] is not None
    return bool(run["tool_calls_effects"] or run["tool_calls_unknown"])


def _effects_forbid(run: Row) -> bool:
    """Returns whether the run must not be repeated because its tool calls may have changed something.

    A trigger that resumes never starts such a run anew (SPEC §16). Any other trigger does, unless its
    `retryAfterEffects` is false (SPEC §18).
    """
    if run["retry_mode"] == RetryMode.RESUME:
        return not can_resume(run) and may_have_had_effects(run)
    return not run["retry_after_effects"] and may_have_had_effects(run)


def create_retries(ended: Iterable[Row], *, retry_after_seconds: int | None = None) -> list[Row]:
    """Queues a retry of each ended run that needs one. `lock_triggers` must have locked the triggers.

    The retry comes due after the waiting time for its attempt, or after `retry_after_seconds` if that is longer. The
    retry of a run that failed `at_limit`, the usage limit of its worker, is due at once, since it waits for the limit.
    Returns `id`, `environment_id`, `worker_id`, `pool_id`, `attempt`, `available_at` and `retry_of_id` of each new run.
    A run whose trigger is disabled or deleted gets no retry, nor does a run that already has one. It takes two
    statements at most.
    """
    runs = [run for run in ended if why_no_retry(run) is None]
    if not runs:
        return []
    retries = fetch_all(
        sql.QUEUE_RETRIES,
        {
            "ids": [new_id() for _ in runs],
            "run_ids": [run["id"] for run in runs],
            "delays": [_delay(run, retry_after_seconds) for run in runs],
            "resumes": (resumes := [can_resume(run) for run in runs]),
            "had_effects": [
                resumed and may_have_had_effects(run)
                for run, resumed in zip(runs, resumes, strict=True)
            ],
            "at_limit": [run["at_limit"] for run in runs],
            "environment_ids": [run["environment_id"] for run in runs],
        },
    )
    if retries:
        execute(
            sql.COPY_PAYLOADS,
            {
                "ids": [retry["id"] for retry in retries],
                "environment_ids": list({retry["environment_id"] for retry in retries}),
            },
        )
    return retries


def _delay(run: Row, retry_after_seconds: int | None) -> timedelta:
    if run["at_limit"]:
        return timedelta(0)
    attempt = run["attempt"] - run["limit_retries"]
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
