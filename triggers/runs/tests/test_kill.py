"""After a kill -9 inside a transition's transaction, no partial change is left, and the next call succeeds."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from audit.models import AuditEntry
from testing.processes.forks import forked, kill
from testing.processes.paused_call import PAUSED, pause_in
from testing.world.runs import Runs
from triggers.models import Delivery, Run

pytestmark = pytest.mark.long

_WAIT_SECONDS = 90.0


def _held(runs: Runs) -> UUID:
    return runs.running()


def _overdue(runs: Runs) -> UUID:
    """Makes a run whose lease has expired, and sets `now` to the time of its expiry, an hour ago."""
    runs.now -= timedelta(hours=1)
    run_id = runs.running()
    runs.now = runs.stored(run_id)["lease_expires_at"]
    return run_id


# (verb that is killed, state of the run, verb that comes next, status of the run after that)
KILLED = [
    pytest.param("claim", Runs.queue, Runs.claim, "claimed", id="claim"),
    pytest.param("claim-next", Runs.queue, Runs.claim, "claimed", id="claim of the next run"),
    pytest.param("start", Runs.claimed, Runs.start, "running", id="start"),
    pytest.param("complete", _held, Runs.complete, "succeeded", id="complete, then again"),
    pytest.param("complete", _overdue, None, "failed", id="complete, then expiry"),
    pytest.param("cancel", Runs.queue, Runs.cancel, "canceled", id="cancel"),
    pytest.param("expire", _overdue, None, "failed", id="expiry"),
]


@pytest.mark.parametrize(("verb", "bring", "then", "status"), KILLED)
def test_a_killed_transition_leaves_nothing_behind(
    committed_runs: Runs,
    verb: str,
    bring: Callable[[Runs], UUID],
    then: Callable[[Runs, UUID], Any] | None,
    status: str,
) -> None:
    runs = committed_runs
    run_id = bring(runs)
    before = _all_there_is(runs, run_id)
    _kill_inside(verb, run_id, runs.cast.worker.worker_id)
    assert _all_there_is(runs, run_id) == before
    if then is None:
        _wait_until(lambda: runs.expire() == 1)
        assert runs.retry_of(run_id) is not None
    else:
        then(runs, run_id)
    assert runs.stored(run_id)["status"] == status


def _all_there_is(runs: Runs, run_id: UUID) -> tuple[Any, ...]:
    return (
        runs.stored(run_id),
        Run.objects.count(),
        Delivery.objects.count(),
        AuditEntry.objects.count(),
    )


def _kill_inside(verb: str, run_id: UUID, worker_id: UUID) -> None:
    """Calls the verb in another process, and kills that after its last write and before its commit."""
    told, tell = os.pipe()
    pid = forked(partial(pause_in, verb, run_id, worker_id, tell))
    os.close(tell)
    try:
        # There is nothing to read if the other process ends instead.
        assert os.read(told, 100) == PAUSED
    finally:
        kill(pid)
        os.close(told)


def _wait_until(is_so: Callable[[], bool]) -> None:
    """Waits until the database has noticed that the process is dead, and has released its locks."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
