"""Each transition takes a small number of SQL statements, which does not grow with the amount of data."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from testing.probes.statement_count import counted
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
    pytest.param(None, lambda runs, _: runs.queue(), 2, id="queue"),
    pytest.param(None, lambda runs, _: runs.queue(payload={"a": 1}), 2, id="queue with a payload"),
    # One more statement locks the worker's row first.
    pytest.param(Runs.queue, lambda runs, run_id: runs.claim(run_id), 4, id="claim"),
    pytest.param(Runs.claimed, lambda runs, run_id: runs.claim(run_id), 3, id="claim, again"),
    pytest.param(Runs.claimed, lambda runs, run_id: runs.start(run_id), 3, id="start"),
    pytest.param(Runs.running, lambda runs, run_id: runs.start(run_id), 2, id="start, again"),
    pytest.param(Runs.running, lambda runs, run_id: runs.heartbeat(run_id), 1, id="heartbeat"),
    pytest.param(
        Runs.running,
        lambda runs, run_id: runs.heartbeat(run_id, (1, 1, 0)),
        1,
        id="heartbeat with counts",
    ),
    pytest.param(
        Runs.running, lambda runs, run_id: runs.complete(run_id, **REPORT), 4, id="complete"
    ),
    pytest.param(
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, toolCalls=COUNTS),
        4,
        id="complete with counts",
    ),
    pytest.param(
        Runs.running, lambda runs, run_id: runs.complete(run_id, output={}), 5, id="with an output"
    ),
    pytest.param(
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, "failed", errorMessage="Broken."),
        5,
        id="complete with an error",
    ),
    # A retry adds three: lock the trigger, insert the run, copy the payload.
    pytest.param(
        Runs.running,
        lambda runs, run_id: runs.complete(run_id, "failed", faultClass="infra"),
        7,
        id="complete with a retry",
    ),
    # The three are the guarded UPDATE, which finds nothing, the lock, and the read.
    pytest.param(Runs.ended, lambda runs, run_id: runs.complete(run_id), 3, id="complete, again"),
    pytest.param(Runs.queue, lambda runs, run_id: runs.cancel(run_id), 3, id="cancel"),
    pytest.param(Runs.running, lambda runs, run_id: runs.cancel(run_id), 4, id="request a cancel"),
    pytest.param(None, lambda runs, _: runs.expire(), 1, id="expire nothing"),
]


@pytest.mark.parametrize("webhook_url", [None, WEBHOOK_URL], ids=["plain", "with a webhook"])
@pytest.mark.parametrize(("bring", "verb", "cost"), COSTS)
def test_a_transition_takes_so_many_statements(
    cast: Cast,
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
    assert len(statements) == cost + delivered, str(statements)


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
    # Nine: find the runs, lock their triggers, end the runs, and store errors, retries, payloads, deliveries,
    # audit rows, and rows for event streams.
    assert costs == [9, 9]


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
    assert costs == [8, 9]
