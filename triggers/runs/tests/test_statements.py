"""Each transition takes a small number of SQL statements, which does not grow with the amount of data."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from testing.probes.statement_count import counted
from testing.world.cases import cases
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import WEBHOOK_URL, Runs, allow
from triggers.models import Run, TriggerHealth

COUNTS = {"total": 1, "effects": 1, "unknown": 0}
REPORT = {"exitCode": 1, "costUsd": "0.1", "inputTokens": 5}

# (state of the run, transition, number of statements without a webhook). One of the statements writes the
# audit row, and one the row for those who stream the worker's events. The end of a run that no retry follows
# takes one for the health of its trigger, which is all that this costs if there are no alarms or nothing is wrong.
COSTS = [
    ("queue", None, lambda runs, _: runs.queue(), 2),
    ("queue with a payload", None, lambda runs, _: runs.queue(payload={"a": 1}), 2),
    # One more statement locks the worker's row first.
    ("claim", Runs.queue, lambda runs, run_id: runs.claim(run_id), 4),
    ("claim, again", Runs.claimed, lambda runs, run_id: runs.claim(run_id), 3),
    ("start", Runs.claimed, lambda runs, run_id: runs.start(run_id), 3),
    ("start, again", Runs.running, lambda runs, run_id: runs.start(run_id), 2),
    ("heartbeat", Runs.running, lambda runs, run_id: runs.heartbeat(run_id), 1),
    (
        "heartbeat with counts",
        Runs.running,
        lambda runs, run_id: runs.heartbeat(run_id, (1, 1, 0)),
        1,
    ),
    ("complete", Runs.running, lambda runs, run_id: runs.complete(run_id, **REPORT), 4),
    (
        "complete with counts",
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, toolCalls=COUNTS),
        4,
    ),
    ("with an output", Runs.running, lambda runs, run_id: runs.complete(run_id, output={}), 5),
    (
        "complete with an error",
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, "failed", errorMessage="Broken."),
        5,
    ),
    # A retry adds three: lock the trigger, insert the run, copy the payload.
    (
        "complete with a retry",
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, "failed", faultClass="infra"),
        6,
    ),
    # The three are the guarded UPDATE, which finds nothing, the lock, and the read.
    ("complete, again", Runs.ended, lambda runs, run_id: runs.complete(run_id), 3),
    ("cancel", Runs.queue, lambda runs, run_id: runs.cancel(run_id), 3),
    ("request a cancel", Runs.running, lambda runs, run_id: runs.cancel(run_id), 4),
    ("expire nothing", None, lambda runs, _: runs.expire(), 1),
]


@cases("webhook_url", [None, WEBHOOK_URL])
@cases(("what", "bring", "verb", "cost"), COSTS, undone=True)
def test_a_transition_takes_so_many_statements(
    cast: Cast,
    what: str,
    bring: Callable[[Runs], UUID] | None,
    verb: Callable[[Runs, Any], Any],
    cost: int,
    webhook_url: str | None,
) -> None:
    runs = Runs.of(cast, webhook_url=webhook_url, alert_after_failures=None)
    TriggerHealth.objects.create(
        trigger_id=runs.trigger_id, environment=cast.environment, has_outcome=True
    )
    run_id = bring(runs) if bring else None
    before = runs.deliveries(run_id) if run_id else []
    with counted() as statements:
        verb(runs, run_id)
    delivered = len(runs.deliveries(run_id)) - len(before) if run_id else 0
    assert len(statements) == cost + delivered, f"{what}: {statements}"


def test_a_batch_of_lost_runs_takes_the_same_statements_as_one(cast: Cast) -> None:
    runs = Runs.of(cast)
    allow(cast.worker.worker_id, 100)
    costs = []
    for size in (1, 50):
        for _ in range(size):
            runs.running(payload={"a": 1})
        runs.wait(seconds=180)
        with counted() as statements:
            assert runs.expire() == size
        costs.append(len(statements))
    assert Run.objects.filter(source="retry", text__payload__isnull=False).count() == 51
    # Eight: find the runs and lock their triggers, end the runs, and store errors, retries, payloads, deliveries,
    # audit rows, and rows for event streams.
    assert costs == [8, 8]


def test_an_end_reads_once_whether_the_worker_is_in_the_pool_if_that_decides(cast: Cast) -> None:
    costs = []
    for retry_mode in ("restart", "resume"):
        pool_id = add_pool(cast, cast.worker.worker_id)
        runs = Runs.of(cast, worker_id=None, pool_id=pool_id, retry_mode=retry_mode)
        run_id = runs.running()
        with counted() as statements:
            runs.complete(run_id, "failed", faultClass="infra", sessionId="s-1")
        assert runs.retry_of(run_id) is not None
        costs.append(len(statements))
    # A run that could not be resumed costs as much as one of a trigger with a worker alone, and its delivery.
    assert costs == [7, 8]
