"""Each transition wakes the waiting polls of the right workers once it is committed."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import transaction

from pipedai.api.renderers import iso_time
from pipedai.events import SYSTEM, Event, emit
from testing.processes.web_process import url_of
from testing.world.cast import TEST_ACTOR
from testing.world.connections import add_oauth_connection
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Trigger
from triggers.services import TRIGGERS
from workers.models import Worker
from workers.services import approve_worker, deregister_worker, revoke_token, update_worker


class Listener:
    """Receives the notifications that the database sends to the web processes."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._connection.execute("LISTEN pipedai")

    def heard(self) -> set[str]:
        """Returns the notifications since the last call. It sends a last one itself, which marks the end."""
        self._connection.execute("NOTIFY pipedai, 'end'")
        heard: set[str] = set()
        for notification in self._connection.notifies(timeout=30):
            if notification.payload == "end":
                return heard
            heard.add(notification.payload)
        raise AssertionError("nothing more was heard")


@pytest.fixture
def runs(committed_runs: Runs) -> Runs:
    return committed_runs


@pytest.fixture
def listener(runs: Runs, own_database: str) -> Iterator[Listener]:
    with psycopg.connect(url_of(own_database), autocommit=True) as connection:
        yield Listener(connection)


def _changed(*worker_ids: UUID) -> set[str]:
    return {f"changed {worker_id}" for worker_id in worker_ids}


def test_a_new_run_wakes_its_worker(runs: Runs, listener: Listener) -> None:
    runs.queue()
    assert listener.heard() == _changed(runs.cast.worker.worker_id)


def test_a_connection_that_is_authorized_wakes_who_waits_for_it(
    runs: Runs, listener: Listener
) -> None:
    connection = add_oauth_connection(runs.cast)
    pool_id = add_pool(runs.cast, runs.cast.worker.worker_id)
    for values in ({}, {"worker_id": None, "pool_id": pool_id}):
        trigger_id = runs.cast.add_trigger(
            connection_id=connection.id, mcp_url=connection.mcp_url, **values
        )
        runs.queue(trigger_id=trigger_id)
    listener.heard()
    with transaction.atomic():
        emit(
            Event(
                "connection.authorized",
                SYSTEM,
                runs.cast.environment.id,
                "connection",
                connection.id,
            )
        )
    assert listener.heard() >= _changed(runs.cast.worker.worker_id) | {f"pool {pool_id} 1"}


def test_a_claim_a_start_and_a_heartbeat_wake_nobody(runs: Runs, listener: Listener) -> None:
    run_id = runs.queue()
    listener.heard()
    runs.claim(run_id)
    runs.start(run_id)
    runs.heartbeat(run_id)
    assert listener.heard() == set()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda runs, run_id: runs.complete(run_id), id="completed"),
        pytest.param(lambda runs, run_id: runs.lost(run_id), id="lost"),
    ],
)
def test_an_end_wakes_the_worker_whose_place_is_free_and_the_streams_of_the_run(
    runs: Runs, listener: Listener, end
) -> None:
    run_id = runs.running()
    listener.heard()
    end(runs, run_id)
    assert listener.heard() == _changed(runs.cast.worker.worker_id, run_id)


def test_a_request_to_cancel_wakes_the_worker(runs: Runs, listener: Listener) -> None:
    run_id = runs.running()
    listener.heard()
    runs.cancel(run_id)
    assert listener.heard() == _changed(runs.cast.worker.worker_id)


def test_a_retry_wakes_its_worker_too(runs: Runs, listener: Listener) -> None:
    run_id = runs.running()
    other = runs.cast.register("host-2").worker_id
    Trigger.objects.filter(id=runs.trigger_id).update(worker=other)
    listener.heard()
    runs.complete(run_id, "failed", faultClass="infra")
    assert listener.heard() == _changed(runs.cast.worker.worker_id, other, run_id)


def test_a_reassignment_wakes_the_old_worker_and_the_new_one(
    runs: Runs, listener: Listener
) -> None:
    runs.queue()
    other = runs.cast.register("host-2").worker_id
    listener.heard()
    TRIGGERS.update(runs.trigger_id, values={"worker_id": other}, actor=TEST_ACTOR)
    assert listener.heard() == _changed(runs.cast.worker.worker_id, other)


def test_a_worker_that_is_enabled_or_may_hold_more_is_woken(runs: Runs, listener: Listener) -> None:
    worker = Worker.objects.get(id=runs.cast.worker.worker_id)
    for values in ({"disabled": True}, {"disabled": False}, {"max_concurrency": 7}):
        update_worker(worker=worker, values=values, actor=TEST_ACTOR)
        assert listener.heard() == _changed(worker.id)
        update_worker(worker=worker, values=values, actor=TEST_ACTOR)  # changes nothing
        assert listener.heard() == set()


def test_a_worker_that_is_approved_is_woken_once(runs: Runs, listener: Listener) -> None:
    registered = runs.cast.register_by_key("host-2")
    worker = Worker.objects.get(id=registered.worker_id)
    listener.heard()
    approve_worker(worker=worker, actor=TEST_ACTOR)
    assert listener.heard() == _changed(worker.id)
    approve_worker(worker=worker, actor=TEST_ACTOR)
    assert listener.heard() == set()


def test_a_poll_is_woken_whose_token_dies(runs: Runs, listener: Listener) -> None:
    registered = runs.cast.worker
    listener.heard()
    runs.cast.register("HOST-1")
    assert listener.heard() == _changed(registered.worker_id)
    worker = Worker.objects.get(id=registered.worker_id)
    revoke_token(worker=worker, actor=TEST_ACTOR)
    assert listener.heard() == _changed(worker.id)


def test_a_removal_wakes_the_worker_and_the_one_that_takes_over(
    runs: Runs, listener: Listener
) -> None:
    runs.queue()
    other = runs.cast.register("host-2").worker_id
    worker = Worker.objects.get(id=runs.cast.worker.worker_id)
    listener.heard()
    deregister_worker(worker=worker, reassign_to=other, actor=TEST_ACTOR)
    assert listener.heard() == _changed(worker.id, other)


def _pooled(runs: Runs, **trigger: Any) -> UUID:
    """Gives the runs' trigger these values and a pool of two workers that are online. Returns the pool's id."""
    workers = [runs.cast.worker.worker_id, runs.cast.register("host-2").worker_id]
    runs.call(*workers)
    pool_id = add_pool(runs.cast, *workers)
    values = {"worker_id": None, "pool_id": pool_id, **trigger}
    Trigger.objects.filter(id=runs.trigger_id).update(**values)
    return pool_id


def test_a_run_of_a_pool_wakes_one_poll_and_its_end_only_whoever_did_it(
    runs: Runs, listener: Listener
) -> None:
    pool_id = _pooled(runs)
    listener.heard()
    run_id = runs.queue()
    assert listener.heard() == {f"pool {pool_id} 1"}
    runs.claim(run_id)
    runs.start(run_id)
    assert listener.heard() == set()
    runs.complete(run_id, "failed", faultClass="infra")
    retried = {f"pool {pool_id} 1"}
    assert listener.heard() == _changed(runs.cast.worker.worker_id, run_id) | retried


def test_an_end_that_frees_a_place_of_the_trigger_wakes_a_poll_of_its_pool(
    runs: Runs, listener: Listener
) -> None:
    pool_id = _pooled(runs, max_concurrent_runs=1)
    run_id = runs.running()
    listener.heard()
    runs.complete(run_id)
    freed = {f"pool {pool_id} 1"}
    assert listener.heard() == _changed(runs.cast.worker.worker_id, run_id) | freed


@pytest.mark.parametrize("reason", ["disabled", "limited"])
def test_a_preferred_worker_that_falls_away_wakes_as_many_polls_as_runs_wait_for_it(
    runs: Runs, listener: Listener, reason: str
) -> None:
    worker = Worker.objects.get(id=runs.cast.worker.worker_id)
    pool_id = _pooled(runs, worker_id=worker.id)
    held = runs.running()
    for _ in range(3):
        runs.queue()
    assert _changed(worker.id) | {f"pool {pool_id} 1"} <= listener.heard()
    if reason == "disabled":
        update_worker(worker=worker, values={"disabled": True}, actor=TEST_ACTOR)
        assert listener.heard() == _changed(worker.id) | {f"pool {pool_id} 3"}
        return
    limit = {"resetsAt": iso_time(runs.now + timedelta(hours=1)), "kind": "five_hour"}
    runs.complete(held, "failed", faultClass="infra", usageLimit=limit)
    retried = {f"pool {pool_id} 1"}
    assert listener.heard() == _changed(worker.id, held) | {f"pool {pool_id} 3"} | retried


def test_what_is_rolled_back_wakes_nobody(runs: Runs, listener: Listener) -> None:
    with transaction.atomic():
        runs.queue()
        transaction.set_rollback(True)
    assert listener.heard() == set()
