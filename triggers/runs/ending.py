"""Writes what the end of a run leads to, in its transaction: error, retry, webhook, event, audit row and budgets."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.sql import Row, execute, fetch_all
from triggers.budgets.spending import settle_reservations
from triggers.runs import statements as sql
from triggers.runs.routing import freed_slots, is_member, wake_for
from triggers.states import NEVER_CLAIMED, EndedBy, FaultClass, RetryMode, Status
from triggers.webhooks.sending import queue_deliveries

_KEEP_ERRORS = """
INSERT INTO run_text (run_id, environment_id, error_message)
SELECT * FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(messages)s::text[])
ON CONFLICT (run_id) DO UPDATE SET error_message = excluded.error_message
"""

# Stores the final ends of runs as events for the triggers that listen. A later end of a run, by a late result, is no
# event, and neither is the end of a run that found nothing new.
_KEEP_ENDS = """
INSERT INTO event (id, environment_id, run_id, received_at)
SELECT n.id, r.environment_id, r.id, r.ended_at FROM unnest(%(ids)s::uuid[], %(run_ids)s::uuid[]) AS n (id, run_id)
JOIN run r ON r.id = n.run_id
WHERE r.status IN ('succeeded', 'failed', 'timed_out') AND NOT r.retried AND NOT r.nothing_new
ON CONFLICT (run_id, environment_id) WHERE run_id IS NOT NULL DO NOTHING
"""


def follow_up(
    ended: list[Row],
    events: list[Event],
    *,
    retry_after_seconds: int | None = None,
    told_cost: Decimal | None = None,
) -> None:
    """Writes the errors, retries, deliveries, events and audit rows of ended runs, and settles their budgets, in the
    transaction that ended them. In each row it sets `will_retry`, and `resume_until`: until when the worker may
    continue the session, or None. `told_cost` is what the worker of a single run reported as the cost of its last
    spell. On commit it wakes workers and streams.
    """
    keep_errors([run for run in ended if run["error_message"] is not None])
    retries = create_retries(ended, retry_after_seconds=retry_after_seconds)
    retry_of = {retry["retry_of_id"]: retry for retry in retries}
    for run in ended:
        retry = retry_of.get(run["id"])
        run["will_retry"] = retry is not None
        run["resume_until"] = None if retry is None else retry["resume_until"]
    queue_deliveries(ended)
    if heard := [run["id"] for run in ended if run["is_heard"]]:
        execute(_KEEP_ENDS, {"ids": [new_id() for _ in heard], "run_ids": heard})
    emit(*events, *retry_events(retries))
    # Budgets are locked last, because from here on the claims and ends of an environment's runs wait for each other.
    if reserved := [run["id"] for run in ended if run["has_reservations"]]:
        settle_reservations(reserved, told_cost=told_cost)
    # The ids of the ended runs wake the streams of their events, so that these end as well.
    told = [id_ for run in ended for id_ in (run["worker_id"], run["id"])]
    wake_for([*retries, *freed_slots(ended)], also=told)


def keep_errors(runs: list[Row]) -> None:
    if runs:
        execute(
            _KEEP_ERRORS,
            {
                "run_ids": [run["id"] for run in runs],
                "environment_ids": [run["environment_id"] for run in runs],
                "messages": [run["error_message"] for run in runs],
            },
        )


def ended_event(action: str, actor: Actor, run: Row, more: dict[str, Any] | None = None) -> Event:
    """Returns the event of an ended run. It says if possible effects of tool calls prevent a retry."""
    if stopped_by_effects(run):
        more = {**(more or {}), "retry": "had_effects"}
    return run_event(action, actor, run, more)


def run_event(action: str, actor: Actor, run: Row, more: dict[str, Any] | None = None) -> Event:
    metadata = {"triggerId": str(run["trigger_id"]), "status": run["status"], **(more or {})}
    if run["fault_class"] is not None:
        metadata["faultClass"] = run["fault_class"]
    return Event(action, actor, run["environment_id"], "run", run["id"], metadata)


# How long a retry waits before it comes due: the second attempt, the third, and every later one.
BACKOFF = (timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))

MAX_RETRY_AFTER_SECONDS = 24 * 3600

# How many attempts of a run may end at usage limits, before the run fails for good.
MAX_LIMIT_RETRIES = 50

_LOCK_TRIGGERS = "SELECT id FROM trigger WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE"


def lock_triggers(trigger_ids: Iterable[UUID]) -> None:
    """Locks triggers against changes, in the order of their ids. Call it before their runs are locked
    (docs/architecture.md).
    """
    fetch_all(_LOCK_TRIGGERS, {"ids": sorted(set(trigger_ids))})


class NoRetry(StrEnum):
    """Why an ended run has no retry."""

    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    # The trigger is to blame (its prompt, MCP server, a limit), so another attempt would probably end in the same
    # way.
    CLIENT_FAULT = "client_fault"
    # Somebody asked to cancel the run, which then ended in another way.
    CANCEL_REQUESTED = "cancel_requested"
    RETRIES_USED = "retries_used"
    # No worker claimed the run before its start deadline.
    START_DEADLINE = "start_deadline"
    # The run's tool calls may have changed something, and its trigger forbids retries of such runs.
    HAD_EFFECTS = "had_effects"
    # The run waited for a decision that nobody made in time, or its worker did not come back after the decision.
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_UNREACHABLE = "approval_unreachable"
    TRIGGER_DELETED = "trigger_deleted"
    TRIGGER_DISABLED = "trigger_disabled"


def why_no_retry(run: Row) -> NoRetry | None:
    if reason := why_not_repeated(run):
        return reason
    if run["trigger_deleted_at"] is not None:
        return NoRetry.TRIGGER_DELETED
    return None if run["trigger_enabled"] else NoRetry.TRIGGER_DISABLED


def why_not_repeated(run: Row) -> NoRetry | None:
    """Returns why the run is not repeated, or None, whether its trigger is enabled or not. HAD_EFFECTS comes last."""
    if run["status"] in (Status.SUCCEEDED, Status.CANCELED):
        return NoRetry(run["status"])
    # A rule by which the server ends runs that no worker holds is the reason itself.
    if run["ended_by"] in (*NEVER_CLAIMED, EndedBy.APPROVAL_EXPIRED):
        return NoRetry(run["ended_by"])
    if run["fault_class"] != FaultClass.INFRA:
        return NoRetry.CLIENT_FAULT
    if run["cancel_requested_at"] is not None:
        return NoRetry.CANCEL_REQUESTED
    if _retries_are_used(run):
        return NoRetry.RETRIES_USED
    return NoRetry.HAD_EFFECTS if _effects_forbid(run) else None


def _retries_are_used(run: Row) -> bool:
    """Returns whether the retries are used up. Attempts that ended at a usage limit have a limit of their own."""
    if run["at_limit"]:
        return bool(run["limit_retries"] >= MAX_LIMIT_RETRIES)
    return bool(run["attempt"] - run["limit_retries"] > run["max_retries"])


def stopped_by_effects(run: Row) -> bool:
    """Whether the only reason against a retry is what tool calls may have changed."""
    return why_not_repeated(run) is NoRetry.HAD_EFFECTS


def can_resume(run: Row) -> bool:
    """Whether the trigger resumes, the session is known, and its worker is still the trigger's or in its pool."""
    return (
        run["retry_mode"] == RetryMode.RESUME
        and run["session_id"] is not None
        and run["worker_id"] is not None
        and (run["trigger_worker_id"] == run["worker_id"] or _worker_is_in_pool(run))
    )


def _worker_is_in_pool(run: Row) -> bool:
    """Returns whether the run's worker is in the trigger's pool. It reads this here, because few runs need it."""
    if "worker_is_in_pool" not in run:
        run["worker_is_in_pool"] = is_member(run["trigger_pool_id"], run["worker_id"])
    return bool(run["worker_is_in_pool"])


def may_have_had_effects(run: Row) -> bool:
    """Returns whether the worker told of tool calls of the run, or of the session that it continued, that may have
    changed something. A worker that tells no counts is one whose runs are always retried.
    """
    return bool(run["had_effects"] or run["tool_calls_effects"] or run["tool_calls_unknown"])


def _effects_forbid(run: Row) -> bool:
    """Returns whether possible effects forbid a retry. If the trigger resumes, they do when the session can't be
    continued; otherwise unless `retryAfterEffects` is set.
    """
    if run["retry_mode"] == RetryMode.RESUME:
        return not can_resume(run) and may_have_had_effects(run)
    return not run["retry_after_effects"] and may_have_had_effects(run)


_COPY_GIVEN = """
INSERT INTO run_text (run_id, environment_id, payload, previous_id)
SELECT r.id, x.environment_id, x.payload, x.previous_id FROM run r JOIN run_text x ON x.run_id = r.retry_of_id
WHERE r.id = ANY(%(ids)s) AND r.environment_id = ANY(%(environment_ids)s)
    AND (x.payload IS NOT NULL OR x.previous_id IS NOT NULL)
"""


def create_retries(ended: Iterable[Row], *, retry_after_seconds: int | None = None) -> list[Row]:
    """Queues a retry of each run that needs one, in two statements at most; `lock_triggers` comes first. A retry comes
    due after the waiting time of its attempt, or after `retry_after_seconds` if that is longer. After a usage limit it
    comes due at once, since it waits for the limit. Returns columns of the new runs.
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
            _COPY_GIVEN,
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
    events = []
    for retry in retries:
        about = {
            "retryOf": str(retry["retry_of_id"]),
            "attempt": retry["attempt"],
            "availableAt": iso_time(retry["available_at"]),
        }
        environment_id = retry["environment_id"]
        events.append(Event("run.retried", SYSTEM, environment_id, "run", retry["id"], about))
    return events
