"""Retries what infrastructure broke: a new run, queued in the transaction that ended the old one (SPEC §6)."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all
from triggers.states import FaultClass, Status

# Before the second attempt, the third, and every later one.
BACKOFF = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
MAX_RETRY_AFTER_SECONDS = 24 * 3600

_LOCK_TRIGGERS = "SELECT id FROM trigger WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE"

# The triggers' present workers and `enabled` are read under the lock above.
_INSERT = """
INSERT INTO run (
    id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries, timeout_seconds,
    retry_of_id, scheduled_for, queued_at, available_at, model)
SELECT n.id, r.environment_id, r.trigger_id, r.revision_id, t.worker_id, 'queued', 'retry', r.attempt + 1,
    r.max_retries, r.timeout_seconds, r.id, r.scheduled_for, r.ended_at, r.ended_at + n.delay, v.model
FROM unnest(%(ids)s::uuid[], %(run_ids)s::uuid[], %(delays)s::interval[]) AS n (id, run_id, delay)
JOIN run r ON r.id = n.run_id JOIN trigger t ON t.id = r.trigger_id JOIN trigger_revision v ON v.id = r.revision_id
WHERE t.enabled AND t.deleted_at IS NULL
ON CONFLICT (retry_of_id) WHERE retry_of_id IS NOT NULL DO NOTHING
RETURNING id, environment_id, worker_id, attempt, available_at, retry_of_id
"""

_COPY_PAYLOADS = """
INSERT INTO run_text (run_id, environment_id, payload)
SELECT r.id, x.environment_id, x.payload FROM run r JOIN run_text x ON x.run_id = r.retry_of_id
WHERE r.id = ANY(%(ids)s) AND x.payload IS NOT NULL
"""


def lock_triggers(trigger_ids: Iterable[UUID]) -> None:
    """Keeps triggers from being changed until this transaction ends, so that a retry goes to the present worker.

    Must come before any lock on their runs (the one lock order: environment, worker, trigger, run, retry).
    """
    fetch_all(_LOCK_TRIGGERS, {"ids": sorted(set(trigger_ids))})


def calls_for_retry(run: Row) -> bool:
    """Whether a run that ended so is to be tried again (unless its trigger is disabled by then)."""
    return (
        run["status"] in (Status.FAILED, Status.TIMED_OUT)
        and run["fault_class"] == FaultClass.INFRA
        and run["attempt"] <= run["max_retries"]
        and run["cancel_requested_at"] is None
    )


def create_retries(ended: Iterable[Row], *, retry_after_seconds: int | None = None) -> list[Row]:
    """Queues a retry of each ended run that calls for one, its trigger locked by `lock_triggers`.

    Due after the back-off of its attempt, or after `retry_after_seconds` if that is later. Returns
    `id`, `environment_id`, `worker_id`, `attempt`, `available_at` and `retry_of_id` of each new run.
    There is none for a run whose trigger is disabled or deleted, and none for one that has a retry
    already. At most two statements.
    """
    runs = [run for run in ended if calls_for_retry(run)]
    if not runs:
        return []
    retries = fetch_all(
        _INSERT,
        {
            "ids": [new_id() for _ in runs],
            "run_ids": [run["id"] for run in runs],
            "delays": [_delay(run["attempt"], retry_after_seconds) for run in runs],
        },
    )
    if retries:
        execute(_COPY_PAYLOADS, {"ids": [retry["id"] for retry in retries]})
    return retries


def _delay(attempt: int, retry_after_seconds: int | None) -> timedelta:
    return max(BACKOFF[min(attempt, len(BACKOFF)) - 1], timedelta(seconds=retry_after_seconds or 0))


def retry_events(retries: Sequence[Row]) -> list[Event]:
    """What to tell of new retries: about the new run, by the system."""
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
