"""Fills a day with runs of every outcome, hour by hour, so that people see full pages."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from testing.world.cast import Cast
from testing.world.events import add_every_row
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Delivery, DeliveryAttempt, SchedulerHeartbeat, Tick

_LONG_NAME = "Summarise-every-pull-request-that-was-merged-overnight-and-tell-the-team-" + "x" * 100
_PROMPT = (
    "Read the pull requests that were merged since yesterday.\n\n"
    "For each, say in one sentence what changed and who should know.\n"
    "https://example.com/" + "a" * 300
)


def make_busy_day(cast: Cast, hours: int = 20) -> UUID:
    """Fills the last 20 hours, or the first `hours` of them; four see each outcome. Returns the id of a run that
    failed because of infrastructure and was retried.
    """
    runs = Runs.of(
        cast,
        name=_LONG_NAME,
        prompt=_PROMPT,
        schedule="*/30 * * * *",
        timezone="America/Argentina/Buenos_Aires",
    )
    runs.now = datetime.now(UTC) - timedelta(hours=20)
    add_pool(cast, cast.worker.worker_id, name="Machines")
    story = _retried(runs)
    for hour in range(hours):
        for n in range(1 + hour % 4):
            _some_run(runs, hour + n)
        runs.wait(minutes=50)
    runs.now = datetime.now(UTC) - timedelta(minutes=12)
    for _ in range(3):
        runs.queue()
    SchedulerHeartbeat.objects.create(host="scheduler-1", pid=4242)
    _add_ticks(runs, blocker=story)
    add_every_row(cast, cast.add_trigger(), runs.trigger_id, story)
    return story


def _add_ticks(runs: Runs, *, blocker: UUID) -> None:
    """Adds a tick of each decision that made no run."""
    rows: tuple[dict[str, Any], ...] = (
        {"decision": "skipped_overlap", "blocked_by_id": blocker},
        {"decision": "skipped_no_worker", "missed_count": 3},
        {"decision": "skipped_missed", "missed_count": 48},
    )
    for n, row in enumerate(rows):
        first = runs.now - timedelta(days=n)
        Tick.objects.create(
            environment=runs.cast.environment,
            trigger_id=runs.trigger_id,
            tick_at=first,
            last_tick_at=first + timedelta(minutes=30) * (row.get("missed_count", 1) - 1),
            decided_at=first,
            **row,
        )


def _some_run(runs: Runs, n: int) -> None:
    run_id = runs.running(payload={"ticket": n, "labels": ["nightly", "report"]})
    runs.wait(seconds=20 + 7 * n)
    if n % 7 == 3:
        runs.complete(
            run_id, "failed", errorMessage="Error: the server answered 500\n  at main", exitCode=1
        )
    elif n % 11 == 5:
        runs.complete(run_id, "timed_out")
    elif n % 13 == 6:
        runs.cancel(run_id)
        runs.complete(run_id, "canceled")
    else:
        runs.complete(
            run_id,
            "succeeded",
            shortMessage="Eleven pull requests, two of them for you.",
            costUsd=round(0.2 + n / 40, 4),
            inputTokens=12_000 + n,
            outputTokens=900,
            numTurns=4,
            sessionId=str(run_id),
            model="claude-sonnet",
        )


def _retried(runs: Runs) -> UUID:
    """Makes a run that is lost and whose retry succeeds, with a webhook that arrives at the second attempt."""
    run_id = runs.lost(
        runs.running(payload={"since": "yesterday", "depth": {"max": 3, "all": False}})
    )
    retry_id = runs.claimed_retry_of(run_id)
    runs.start(retry_id)
    runs.wait(minutes=3)
    runs.complete(retry_id, "succeeded", shortMessage="Done at last.", costUsd="1.25", numTurns=9)
    delivery = Delivery.objects.get(run_id=run_id)
    for n, (code, error) in enumerate(((None, "ReadTimeout"), (204, None)), 1):
        DeliveryAttempt.objects.create(
            environment_id=delivery.environment_id,
            delivery=delivery,
            n=n,
            at=runs.now + timedelta(seconds=10 * n),
            status_code=code,
            duration_ms=n * 310,
            error=error,
        )
    Delivery.objects.filter(id=delivery.id).update(
        status="delivered",
        attempt_count=2,
        delivered_at=runs.now + timedelta(seconds=20),
        next_attempt_at=None,
    )
    return run_id
