"""DELETE /triggers/:id"""

import pytest

from testing.probes.audited import audited
from testing.probes.shapes import NOT_FOUND
from testing.world.cases import cases
from testing.world.runs import Runs
from triggers.models import Run, Trigger


@pytest.fixture
def url(cast):
    return f"/api/v1/triggers/{cast.trigger_id}"


@pytest.fixture
def client(cast):
    return cast.client(cast.admin)


def test_it_is_gone_from_every_read(cast, client, url):
    response = client.delete(url)
    assert (response.status_code, response.content) == (204, b"")
    for path in ("", "/runs", "/ticks"):
        answer = client.get(url + path)
        assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
    listed = client.get(f"/api/v1/environments/{cast.environment.id}/triggers").json()
    assert listed["items"] == []


def test_it_is_audited_once_however_often_it_is_sent(cast, client, url):
    with audited() as rows:
        assert [client.delete(url).status_code for _ in "12"] == [204, 404]
    metadata = rows.the_only(
        "trigger.deleted",
        by=("user", cast.admin.id),
        on=("trigger", cast.trigger_id),
        within=cast.environment.id,
    )
    assert metadata == {"name": "Nightly report"}


def test_its_runs_stay_in_the_ledger(cast, client, url):
    run_id = str(Runs(cast, cast.trigger_id).ended())
    client.delete(url)
    listed = client.get(f"/api/v1/environments/{cast.environment.id}/runs").json()["items"]
    assert [(run["id"], run["triggerName"]) for run in listed] == [(run_id, "Nightly report")]
    assert client.get(f"/api/v1/runs/{run_id}").status_code == 200


@cases("state", ["queue", "claimed", "running"], undone=True)
def test_an_unfinished_run_holds_it(cast, client, url, state):
    getattr(Runs(cast, cast.trigger_id), state)()
    with audited() as rows:
        response = client.delete(url)
    assert response.status_code == 409
    assert response.json() == {
        "error": "The trigger still has 1 unfinished run.",
        "code": "unfinished_runs",
    }
    assert rows == []
    assert client.get(url).status_code == 200


def test_the_refusal_says_how_many(cast, client, url):
    runs = Runs(cast, cast.trigger_id)
    ids = [runs.queue() for _ in range(3)]
    assert client.delete(url).json() == {
        "error": "The trigger still has 3 unfinished runs.",
        "code": "unfinished_runs",
    }
    for run_id in ids:
        runs.cancel(run_id)
    assert client.delete(url).status_code == 204


def test_it_neither_runs_nor_ticks_any_more(cast, client, url):
    client.patch(url, {"schedule": "* * * * *"})
    client.delete(url)
    assert Trigger.objects.get().next_run_at is None
    response = client.post(f"{url}/run", {})
    assert (response.status_code, response.json()) == (404, NOT_FOUND)
    assert Run.objects.count() == 0


def test_its_worker_is_free_to_go(cast, client, url):
    worker = f"/api/v1/workers/{cast.worker.worker_id}"
    assert client.delete(worker).status_code == 409
    client.delete(url)
    assert client.delete(worker).status_code == 204


def test_it_makes_room_under_the_ceiling(cast, client, url, ceilings):
    ceilings["triggers"] = 1
    create = f"/api/v1/environments/{cast.environment.id}/triggers"
    body = {"name": "n", "prompt": "p", "mcpUrl": "https://mcp.example/"}
    refused = client.post(create, body)
    assert refused.status_code == 409
    assert "trigger" in refused.json()["error"]
    client.delete(url)
    assert client.post(create, body).status_code == 201


def test_its_headers_go_with_it(cast, client):
    trigger_id = cast.add_trigger(mcp_headers={"x": "planted"})
    assert client.delete(f"/api/v1/triggers/{trigger_id}").status_code == 204
    trigger = Trigger.objects.get(id=trigger_id)
    assert (trigger.mcp_headers, trigger.mcp_key_id) == (None, None)
