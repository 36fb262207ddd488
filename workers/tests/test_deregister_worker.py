"""DELETE /workers/:id deregisters a worker, with or without one that takes its triggers over."""

import pytest

from pipedai.ids import new_id
from testing.probes.audited import audited
from testing.probes.shapes import NOT_FOUND, invalid
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import browser, register
from testing.world.runs import Runs
from triggers.models import Trigger
from workers.models import Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/workers/{cast.worker.worker_id}"


@pytest.fixture
def client(cast):
    return cast.client(cast.admin)


@pytest.fixture
def heir(cast):
    return cast.register("heir")


def unassign():
    Trigger.objects.update(worker_id=None)


def the_row(rows, cast):
    return rows.the_only(
        "worker.deregistered",
        by=("user", cast.admin.id),
        on=("worker", cast.worker.worker_id),
        within=cast.environment.id,
    )


def test_one_that_nothing_needs_is_gone(cast, client, url):
    unassign()
    with audited() as rows:
        response = client.delete(url)
    assert (response.status_code, response.content) == (204, b"")
    assert the_row(rows, cast) == {"hostname": "host-1"}
    assert client.get(url).json() == NOT_FOUND
    listed = client.get(f"/api/v1/environments/{cast.environment.id}/workers").json()
    assert listed["items"] == []


def test_its_token_is_dead(cast, client, url):
    unassign()
    client.delete(url)
    assert WorkerCalls(cast.worker).poll().status_code == 401


def test_again_is_404_and_audited_once(client, url):
    unassign()
    with audited() as rows:
        assert [client.delete(url).status_code for _ in "12"] == [204, 404]
    assert len(rows) == 1


def test_its_hostname_registers_as_a_new_worker(cast, client, url):
    unassign()
    client.delete(url)
    assert cast.register("host-1").worker_id != cast.worker.worker_id


@pytest.mark.parametrize(
    ("triggers", "runs", "held"),
    [
        (1, 0, "1 trigger"),
        (2, 0, "2 triggers"),
        (1, 1, "1 trigger and 1 unfinished run"),
        (1, 3, "1 trigger and 3 unfinished runs"),
        (0, 1, "1 unfinished run"),
    ],
)
def test_what_needs_it_is_named_and_counted(cast, client, url, triggers, runs, held):
    ledger = Runs(cast, cast.trigger_id)
    for n in range(runs):
        if n == 0:
            ledger.running()
        else:
            ledger.queue()
    if triggers == 2:
        cast.add_trigger()
    if triggers == 0:
        unassign()
    with audited() as rows:
        response = client.delete(url)
    assert response.status_code == 409
    assert response.json() == {
        "error": f"The machine still has {held}: name another one in reassignTo.",
        "code": "has_children",
    }
    assert rows == []


def test_an_heir_takes_triggers_and_queued_runs(cast, client, url, heir):
    ledger = Runs(cast, cast.trigger_id)
    held, queued = ledger.running(), [ledger.queue(), ledger.queue()]
    cast.add_trigger()
    with audited() as rows:
        response = client.delete(f"{url}?reassignTo={heir.worker_id}")
    assert response.status_code == 204
    assert the_row(rows, cast) == {
        "hostname": "host-1",
        "reassignedTo": str(heir.worker_id),
        "triggers": 2,
        "runs": 2,
    }
    assert set(Trigger.objects.values_list("worker_id", flat=True)) == {heir.worker_id}
    assert {ledger.stored(run)["worker_id"] for run in queued} == {heir.worker_id}
    Worker.objects.filter(id=heir.worker_id).update(max_concurrency=5)
    polled = WorkerCalls(heir).poll().json()["runs"]
    assert {run["id"] for run in polled} == {str(run) for run in queued}
    assert ledger.stored(held)["worker_id"] == cast.worker.worker_id


def test_a_run_that_it_held_is_lost_and_retried_by_the_heir(cast, client, url, heir):
    ledger = Runs(cast, cast.trigger_id)
    held = ledger.running()
    client.delete(f"{url}?reassignTo={heir.worker_id}")
    ledger.lost(held)
    run, retry = ledger.stored(held), ledger.retry_of(held)
    assert (run["status"], run["fault_class"]) == ("failed", "infra")
    assert retry is not None
    assert (retry["status"], retry["worker_id"]) == ("queued", heir.worker_id)


@pytest.mark.parametrize("which", ["missing", "foreign", "deregistered"])
def test_an_heir_that_is_not_the_environments_looks_missing(cast, client, url, heir, which):
    if which == "deregistered":
        client.delete(f"/api/v1/workers/{heir.worker_id}")
    worker_id = {
        "missing": new_id(),
        "foreign": register(cast.mint_elsewhere("wrk"), "h").worker_id,
        "deregistered": heir.worker_id,
    }[which]
    response = client.delete(f"{url}?reassignTo={worker_id}")
    assert response.status_code == 400
    assert response.json() == invalid({"reassignTo": ["No such machine in this environment."]})


def test_it_is_not_its_own_heir(cast, client, url):
    response = client.delete(f"{url}?reassignTo={cast.worker.worker_id}")
    assert response.json() == invalid({"reassignTo": ["Must be another machine."]})


@pytest.mark.parametrize("bad", ["", "x", "123"])
def test_a_malformed_heir_is_a_field_error(client, url, bad):
    response = client.delete(f"{url}?reassignTo={bad}")
    assert response.status_code == 400
    assert response.json() == invalid({"reassignTo": ["Must be a UUID."]})


def test_it_makes_room_under_the_ceiling(cast, client, url, ceilings):
    ceilings["workers"] = 1
    unassign()
    body = {"token": cast.mint("wrk"), "hostname": "host-2", "os": "linux", "version": "1"}
    refused = browser().post("/api/v1/workers/register", body)
    assert refused.status_code == 409
    assert "machine" in refused.json()["error"]
    client.delete(url)
    assert browser().post("/api/v1/workers/register", body).status_code == 201
