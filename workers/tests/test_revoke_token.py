"""POST /workers/:id/revoke-token"""

import pytest

from testing.probes.audited import audited
from testing.processes.worker_calls import WorkerCalls
from testing.world.runs import Runs


@pytest.fixture
def url(cast):
    return f"/api/v1/workers/{cast.worker.worker_id}/revoke-token"


def test_the_token_is_dead_at_once_for_every_call(cast, url):
    run_id = Runs(cast, cast.trigger_id).running()
    calls = WorkerCalls(cast.worker)
    assert calls.heartbeat(run_id).status_code == 200
    response = cast.client(cast.admin).post(url)
    assert (response.status_code, response.content) == (204, b"")
    answers = [
        calls.poll(),
        calls.claim(run_id),
        calls.start(run_id),
        calls.heartbeat(run_id),
        calls.complete(run_id, status="succeeded"),
    ]
    assert {answer.status_code for answer in answers} == {401}


def test_it_is_audited_once_however_often_it_is_sent(cast, url):
    client = cast.client(cast.admin)
    with audited() as rows:
        assert [client.post(url).status_code for _ in "123"] == [204, 204, 204]
    metadata = rows.the_only(
        "worker.token-revoked",
        by=("user", cast.admin.id),
        on=("worker", cast.worker.worker_id),
        within=cast.environment.id,
    )
    assert metadata == {}


def test_the_worker_registers_again_as_itself_and_keeps_what_it_holds(cast, url):
    run_id = Runs(cast, cast.trigger_id).running()
    cast.client(cast.admin).post(url)
    again = cast.register("HOST-1")
    assert again.worker_id == cast.worker.worker_id
    assert WorkerCalls(again).heartbeat(run_id).status_code == 200
    assert WorkerCalls(cast.worker).poll().status_code == 401


def test_people_still_see_the_worker(cast, url):
    cast.client(cast.admin).post(url)
    worker = cast.client(cast.viewer).get(url.removesuffix("/revoke-token"))
    assert worker.status_code == 200
