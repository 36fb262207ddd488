"""A run that no worker claims in time fails, is not retried, and is told like any end."""

from datetime import timedelta

import pytest

from pipedai.api.errors import Conflict
from testing.world.cast import Cast
from testing.world.connections import add_oauth_connection
from testing.world.runs import Runs
from triggers.models import Trigger


@pytest.fixture
def hurried(cast: Cast) -> Runs:
    return Runs.of(cast, start_deadline_seconds=60)


def test_a_run_that_nobody_claimed_in_time_fails_for_good(hurried: Runs) -> None:
    run_id = hurried.queue()
    hurried.wait(seconds=59)
    assert hurried.expire_queued() == 0
    assert hurried.polled() == [run_id]
    hurried.wait(seconds=1)
    assert hurried.polled() == []
    with pytest.raises(Conflict) as late:
        hurried.claim(run_id)
    assert late.value.code == "start_deadline"
    assert hurried.expire_queued() == 1
    run = hurried.stored(run_id)
    assert (run["status"], run["fault_class"], run["ended_by"]) == (
        "failed",
        "infra",
        "start_deadline",
    )
    assert "60 s" in run["error_message"]
    assert hurried.retry_of(run_id) is None
    assert len(hurried.deliveries(run_id)) == 1
    assert hurried.actions(run_id) == ["run.created", "run.not-started"]
    assert hurried.expire_queued() == 0


def test_a_run_that_waits_for_a_connection_does_not_wait_beyond_it(hurried: Runs) -> None:
    connection = add_oauth_connection(hurried.cast, since=hurried.now - timedelta(hours=1))
    Trigger.objects.filter(id=hurried.trigger_id).update(
        connection=connection, mcp_url=connection.mcp_url
    )
    run_id = hurried.queue()
    assert hurried.polled() == []
    hurried.wait(seconds=60)
    assert hurried.expire_queued() == 1
    assert hurried.stored(run_id)["ended_by"] == "start_deadline"


def test_a_claimed_run_has_met_it(hurried: Runs) -> None:
    run_id = hurried.claimed()
    hurried.wait(seconds=61)
    assert hurried.expire_queued() == 0
    assert hurried.stored(run_id)["status"] == "claimed"


def test_a_retry_has_the_time_from_when_it_comes_due(hurried: Runs) -> None:
    run_id = hurried.running()
    hurried.complete(run_id, "failed", faultClass="infra")
    retry = hurried.retry_of(run_id)
    assert retry is not None
    assert (retry["start_deadline_at"] - retry["available_at"]).total_seconds() == 60


def test_without_a_deadline_a_run_waits(cast: Cast) -> None:
    runs = Runs.of(cast)
    run_id = runs.queue()
    runs.wait(days=30)
    assert runs.expire_queued() == 0
    assert runs.polled() == [run_id]
