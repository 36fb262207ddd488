"""A trigger has a pool besides, or instead of, a worker, and a number of runs that may be held at once."""

from datetime import timedelta
from functools import partial

import pytest
from django.db import transaction
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.probes.audited import audited
from testing.probes.shapes import invalid
from testing.processes.racing import Started
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR
from testing.world.pools import add_pool
from testing.world.runs import Runs, allow
from triggers.models import Run, Trigger
from triggers.services import TRIGGERS
from workers.models import Pool, Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}"


@pytest.fixture
def patch(cast, url):
    return lambda **body: cast.client(cast.admin).patch(url, body)


@pytest.fixture
def pool_id(cast):
    """A pool with another worker, which is online like the cast's."""
    pool_id = add_pool(cast, cast.register("host-2").worker_id)
    Worker.objects.update(last_seen_at=Now())
    return pool_id


def routing(run_id):
    """Returns the worker and the pool of a run, and how long after its due time the pool's others may take it."""
    run = Run.objects.get(id=run_id)
    wait = None if run.pool_from is None else (run.pool_from - run.available_at).total_seconds()
    return run.worker_id, run.pool_id, wait


def test_a_pool_of_another_environment_and_a_deleted_one_do_not_exist(cast, patch):
    foreign = Pool.objects.create(environment=cast.strange_environment, name="theirs").id
    deleted = Pool.objects.create(
        environment=cast.environment, name="gone", deleted_at=database_now()
    ).id
    create = f"/api/v1/environments/{cast.environment.id}/triggers"
    body = {"name": "New", "prompt": "Work.", "mcpUrl": "https://mcp.example/"}
    for other in (foreign, deleted, new_id()):
        for refused in (
            patch(poolId=other),
            cast.client(cast.admin).post(create, {**body, "poolId": other}),
        ):
            assert refused.status_code == 400
            assert refused.json() == invalid({"poolId": ["No such pool in this environment."]})


def test_queued_runs_move_to_the_pool_and_out_of_it(cast, patch, pool_id):
    worker_id = cast.worker.worker_id
    run_id = Runs(cast, cast.trigger_id, now=database_now()).queue()
    with audited() as rows:
        assert patch(poolId=pool_id).json()["poolId"] == str(pool_id)
        assert routing(run_id) == (worker_id, pool_id, 60)
        patch(preferSeconds=5)
        assert routing(run_id) == (worker_id, pool_id, 5)
        patch(workerId=None)
        assert routing(run_id) == (None, pool_id, 0)
        patch(poolId=None)
        assert routing(run_id) == (None, None, None)
    assert rows.told() == [
        ("trigger.updated", changes)
        for changes in (
            {"poolId": [None, str(pool_id)]},
            {"preferSeconds": [60, 5]},
            {"workerId": [str(worker_id), None]},
            {"poolId": [str(pool_id), None]},
        )
    ]


def test_a_run_shows_its_pool_and_its_start_deadline(cast, patch, pool_id):
    patch(workerId=None, poolId=pool_id, startDeadlineSeconds=60)
    client = cast.client(cast.owner)
    run = client.post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()
    assert (run["workerId"], run["poolId"]) == (None, str(pool_id))
    row = Run.objects.get(id=run["id"])
    assert row.start_deadline_at == row.available_at + timedelta(seconds=60)
    assert client.get(f"/api/v1/runs/{run['id']}").json() == run
    assert run["startDeadlineAt"] > run["availableAt"]


@cases("how", ["disabled", "revoked", "accountId"], undone=True)
def test_others_take_at_once_what_waits_for_a_worker_that_can_take_nothing(
    cast, patch, pool_id, how
):
    patch(poolId=pool_id)
    run_id = Runs(cast, cast.trigger_id, now=database_now()).queue()
    assert routing(run_id)[2] == 60
    client, worker = cast.client(cast.admin), f"/api/v1/workers/{cast.worker.worker_id}"
    if how == "disabled":
        assert client.patch(worker, {"disabled": True}).status_code == 200
    elif how == "revoked":
        assert client.post(f"{worker}/revoke-token").status_code == 204
    else:
        Worker.objects.filter(hostname="host-2").update(
            account_id="one", limited_until=Now() + timedelta(hours=1)
        )
        assert client.patch(worker, {"accountId": "one"}).json()["limitedUntil"] is not None
    assert routing(run_id) == (cast.worker.worker_id, pool_id, 0)


def slots():
    """Returns the trigger's slots of the held runs, by the order of their claims."""
    held = Run.objects.filter(slot__isnull=False).order_by("claimed_at", "id")
    return list(held.values_list("trigger_slot", flat=True))


def test_held_runs_get_places_when_their_number_is_limited(cast, patch):
    allow(cast.worker.worker_id, 3)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    for _ in range(3):
        runs.claimed()
    assert slots() == [None] * 3
    with audited() as rows:
        assert patch(maxConcurrentRuns=2).json()["maxConcurrentRuns"] == 2
    assert slots() == [1, 2, 3]
    assert rows.told() == [("trigger.updated", {"maxConcurrentRuns": [None, 2]})]


def test_no_claim_is_under_way_when_places_are_given(committed_cast):
    cast = committed_cast
    update = partial(
        TRIGGERS.update,
        cast.trigger_id,
        values={"max_concurrent_runs": 1},
        actor=TEST_ACTOR,
    )
    with transaction.atomic():
        list(Worker.objects.select_for_update(no_key=True).filter(id=cast.worker.worker_id))
        limiting = Started(update)
        limiting.wait_until_blocked()
    assert limiting.answer() is None
    assert Trigger.objects.get(id=cast.trigger_id).max_concurrent_runs == 1
