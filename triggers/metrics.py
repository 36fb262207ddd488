"""The metrics of runs, schedules and webhooks. Domain events increase the counters, and queries read the gauges."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.dispatch import receiver
from prometheus_client import Counter, Histogram

from pipedai.events import Event, on_committed
from pipedai.metrics.database import register_gauges
from pipedai.outgoing.attempts import attempted
from pipedai.outgoing.posts import Answer
from triggers.heartbeats import ALIVE_WITHIN
from triggers.models import Delivery
from triggers.run_events.recording import stored
from triggers.schedules.firing import lengthened
from triggers.states import HELD, Decision, FaultClass, Source, Status

QUEUED = Counter("pipedai_runs_queued", "Runs that were queued.", ["source"])
CLAIMED = Counter("pipedai_runs_claimed", "Runs that a worker claimed.")
STARTED = Counter("pipedai_runs_started", "Runs that a worker started.")
ENDED = Counter("pipedai_runs_ended", "Runs that ended.", ["status", "fault_class"])
CANCEL_REQUESTS = Counter("pipedai_run_cancel_requests", "Cancels asked of a worker.")
LEASES_EXPIRED = Counter("pipedai_run_leases_expired", "Runs whose worker was not heard of.")
DEADLINES_PASSED = Counter("pipedai_run_deadlines_passed", "Runs that the server timed out.")
LATE_RESULTS = Counter(
    "pipedai_run_late_results",
    "Results for runs that the server had ended: accepted ones replaced the outcome that was counted.",
    ["accepted"],
)
FIRING_LAG = Histogram(
    "pipedai_tick_firing_lag_seconds",
    "From a due time to the commit of its run, by this process's clock.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600),
)
TICKS_SKIPPED = Counter("pipedai_ticks_skipped", "Due times that made no run.", ["decision"])
RUN_EVENTS = Counter("pipedai_run_events_stored", "Events of runs that were stored.")
RUN_EVENTS_TRUNCATED = Counter(
    "pipedai_run_events_truncated", "Runs whose further events are not kept, because of a limit."
)
DELIVERIES_SETTLED = Counter(
    "pipedai_deliveries_settled", "Webhook deliveries that were delivered, or given up.", ["status"]
)
ATTEMPT_SECONDS = Histogram(
    "pipedai_webhook_attempt_duration_seconds",
    "Time that sending a webhook once took; `error` is an attempt without an answer.",
    ["result"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)

_SETTLED = {
    "webhook.delivered": Delivery.Status.DELIVERED.value,
    "webhook.failed": Delivery.Status.DEAD.value,
}


@on_committed
def count_run_event(event: Event) -> None:
    """Increases the counters that an event of a run concerns, after the event's transaction has committed."""
    match event.action:
        case "run.created":
            QUEUED.labels(event.metadata["source"]).inc()
        case "run.scheduled":
            QUEUED.labels(Source.SCHEDULE.value).inc()
            due_at = datetime.fromisoformat(event.metadata["tickAt"])
            FIRING_LAG.observe(max(0.0, time.time() - due_at.timestamp()))
        case "run.retried":
            QUEUED.labels(Source.RETRY.value).inc()
        case "run.claimed":
            CLAIMED.inc()
        case "run.started":
            STARTED.inc()
        case (
            "run.completed"
            | "run.canceled"
            | "run.lost"
            | "run.timed-out"
            | "run.not-started"
            | "run.approval-expired"
        ):
            _count_end(event)
        case "run.cancel-requested":
            CANCEL_REQUESTS.inc()
        case "run.late-result":
            LATE_RESULTS.labels("false").inc()


@on_committed
def count_outcome(event: Event) -> None:
    if event.action == "run.skipped":
        missed = event.metadata["missedCount"]
        TICKS_SKIPPED.labels(event.metadata["decision"]).inc(missed or 1)
    elif event.action in _SETTLED:
        DELIVERIES_SETTLED.labels(_SETTLED[event.action]).inc()


def _count_end(event: Event) -> None:
    if event.action == "run.lost":
        LEASES_EXPIRED.inc()
    if event.action == "run.timed-out":
        DEADLINES_PASSED.inc()
    if event.metadata.get("late"):
        # The end of this run was counted when the server ended it. Now a late report of its worker replaces that end.
        LATE_RESULTS.labels("true").inc()
        if "canceledRetry" in event.metadata:
            ENDED.labels(Status.CANCELED.value, FaultClass.NONE.value).inc()
        return
    ENDED.labels(event.metadata["status"], event.metadata["faultClass"]).inc()


@receiver(attempted, sender=Delivery, dispatch_uid="triggers.metrics")
def count_attempt(answer: Answer, **_: Any) -> None:
    answered = answer.error is None and answer.status_code is not None
    result = f"{(answer.status_code or 0) // 100}xx" if answered else "error"
    ATTEMPT_SECONDS.labels(result).observe(answer.duration_ms / 1000)


@receiver(lengthened, dispatch_uid="triggers.metrics")
def count_lengthened(decisions: Sequence[str], **_: Any) -> None:
    """Counts due times that were added to a stretch. The first due time of a stretch emits an event instead."""
    for decision in decisions:
        TICKS_SKIPPED.labels(decision).inc()


@receiver(stored, dispatch_uid="triggers.metrics")
def count_stored(count: int, is_truncated: bool, **_: Any) -> None:
    RUN_EVENTS.inc(count)
    if is_truncated:
        RUN_EVENTS_TRUNCATED.inc()


register_gauges(
    """
SELECT coalesce(extract(epoch FROM statement_timestamp() - min(next_run_at)), 0) AS overdue
FROM trigger WHERE next_run_at <= statement_timestamp()
""",
    {
        "overdue": (
            "pipedai_schedule_overdue_seconds",
            "How long the due time has passed that waits longest to be fired; 0 if none does.",
        )
    },
)
register_gauges(
    """
SELECT count(*) AS pending,
    coalesce(greatest(extract(epoch FROM statement_timestamp() - min(next_attempt_at)), 0), 0) AS overdue
FROM (SELECT next_attempt_at FROM delivery WHERE status = 'pending' ORDER BY next_attempt_at LIMIT %(limit)s) d
""",
    {
        "pending": (
            "pipedai_deliveries_pending",
            "Webhook deliveries that are neither delivered nor given up.",
        ),
        "overdue": (
            "pipedai_delivery_overdue_seconds",
            "How long the delivery has been due that waits longest to be sent; 0 if none does.",
        ),
    },
)
register_gauges(
    "SELECT count(*) AS living FROM scheduler_heartbeat WHERE beat_at > statement_timestamp() - %(alive)s",
    {"living": ("pipedai_schedulers", "Schedulers with a fresh heartbeat.")},
    alive=ALIVE_WITHIN,
)
register_gauges(
    """
SELECT status, count(*) AS runs FROM (SELECT status FROM run WHERE slot IS NOT NULL LIMIT %(limit)s) h GROUP BY status
""",
    {"runs": ("pipedai_runs_held", "Runs that workers hold.")},
    by="status",
    words=[status.value for status in HELD],
)
register_gauges(
    """
SELECT count(*) AS runs FROM (SELECT FROM run WHERE status = 'waiting' AND spells > 0 LIMIT %(limit)s) w
""",
    {"runs": ("pipedai_runs_waiting", "Runs that wait for a person's decision.")},
)


def _start_at_zero() -> None:
    """Makes each counter 0 for all of its labels. Otherwise a rate would miss the first event."""
    for source in Source:
        QUEUED.labels(source.value)
    for status, fault in (
        (Status.SUCCEEDED, FaultClass.NONE),
        (Status.CANCELED, FaultClass.NONE),
        (Status.FAILED, FaultClass.INFRA),
        (Status.FAILED, FaultClass.CLIENT),
        (Status.TIMED_OUT, FaultClass.INFRA),
        (Status.TIMED_OUT, FaultClass.CLIENT),
    ):
        ENDED.labels(status.value, fault.value)
    for accepted in ("true", "false"):
        LATE_RESULTS.labels(accepted)
    for decision in Decision:
        if decision is not Decision.FIRED:
            TICKS_SKIPPED.labels(decision.value)
    for settled in _SETTLED.values():
        DELIVERIES_SETTLED.labels(settled)


_start_at_zero()
