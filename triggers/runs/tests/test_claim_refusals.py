"""Each reason for which a worker may not have a run has a code of its own in the API's answer to its claim."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from pipedai.sql import database_now, fetch_all
from testing.processes.explain_calls import Calls
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import Cast
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow


@pytest.fixture
def calls(cast: Cast) -> Calls:
    allow(cast.worker.worker_id, 5)
    return Calls(cast)


def refused(answer: Any) -> str:
    """Returns the code of a refused claim."""
    assert answer.status_code == 409
    assert answer.json()["error"]
    return str(answer.json()["code"])


def test_a_paused_environment(calls: Calls, cast: Cast) -> None:
    run_id: Any = calls.queue()
    url = f"/api/v1/environments/{cast.environment.id}"
    assert calls.admin.patch(url, {"paused": True}).status_code == 200
    assert refused(calls.worker.claim(run_id)) == "environment_paused"
    assert refused(calls.admin.post(f"{calls.trigger_url}/run")) == "environment_paused"


def test_a_run_of_a_pool_that_another_worker_may_have_first(calls: Calls, cast: Cast) -> None:
    registered = cast.register("two")
    two = WorkerCalls(registered)
    calls.change_trigger(poolId=str(add_pool(cast, registered.worker_id)))
    assert calls.worker.poll().status_code == two.poll().status_code == 200
    run_id: Any = calls.queue()
    assert refused(two.claim(run_id)) == "first_worker"


def test_a_trigger_that_holds_as_many_runs_as_it_may(calls: Calls) -> None:
    calls.change_trigger(maxConcurrentRuns=1)
    first: Any = calls.queue()
    second: Any = calls.queue()
    assert calls.worker.claim(first).status_code == 200
    assert refused(calls.worker.claim(second)) == "trigger_full"


def test_a_worker_whose_account_is_limited(calls: Calls) -> None:
    resets_at = (database_now() + timedelta(hours=2)).isoformat()
    run_id: Any = calls.queue()
    limit = {"resetsAt": resets_at, "kind": "five_hour"}
    calls.end("failed", faultClass="infra", usageLimit=limit)
    assert refused(calls.worker.claim(run_id)) == "worker_limited"


def test_a_run_whose_start_deadline_has_passed(calls: Calls, cast: Cast) -> None:
    """The clock of these runs stands in the past, so the deadline is over for the API."""
    run_id = Runs.of(cast, start_deadline_seconds=60).queue()
    assert refused(calls.worker.claim(run_id)) == "start_deadline"


def _prepared() -> set[str]:
    """Returns the names of the statements that are prepared on the test's connection."""
    return {row["name"] for row in fetch_all("SELECT name FROM pg_prepared_statements", {})}


def test_a_lost_claim_leaves_the_connections_prepared_statements(
    calls: Calls, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that psycopg drops none of earlier tests in favour of a new one.
    monkeypatch.setattr(connection.connection, "prepared_max", 10_000)
    registered = cast.register("two")
    two = WorkerCalls(registered)
    pool_id = add_pool(cast, cast.worker.worker_id, registered.worker_id)
    calls.change_trigger(workerId=None, poolId=str(pool_id))
    run_id: Any = calls.queue()
    assert calls.worker.claim(run_id).status_code == 200
    for _ in range(7):  # psycopg prepares a statement when it has seen it five times
        prepared = _prepared()
    assert prepared
    assert refused(two.claim(run_id)) == "claimed_by_another"
    stranger = WorkerCalls(cast.register("three"))
    assert stranger.claim(run_id).status_code == 404
    assert prepared <= _prepared()
