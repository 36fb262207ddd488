"""GET /workers/:id/poll, when it answers at once"""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from pipedai.api.renderers import iso_time
from pipedai.server.memory_budget import HOLDING, MIB, Holding, MemoryBudget
from pipedai.server.outer import LOG
from pipedai.server.ticket import POLL, STREAM, PollTicket, WorkerStreamTicket
from pipedai.sql import database_now
from testing.probes.shapes import A_TIME, invalid
from testing.world.cast import bearer
from testing.world.pools import add_pool
from testing.world.runs import allow
from triggers.models import Run, Trigger
from workers.models import Worker


@pytest.fixture
def url(cast):
    return f"/api/v1/workers/{cast.worker.worker_id}/poll"


@pytest.fixture
def poll(cast, url):
    client = cast.worker_client()

    def polling(query="", **headers):
        response = client.get(f"{url}?{query}", **headers)
        assert response.status_code == 200, response.json()
        return response.json()

    return polling


@pytest.fixture
def queue(cast):
    client = cast.key_client()

    def queueing(trigger_id=None, **body):
        url = f"/api/v1/triggers/{trigger_id or cast.trigger_id}/run"
        return client.post(url, body).json()

    return queueing


def test_nothing_to_do(poll):
    assert poll() == {
        "runs": [],
        "serverTime": A_TIME,
        "authMode": "claude_max",
        "limitedUntil": None,
    }


def test_its_lane_learns_whose_turn_it_is(cast, poll):
    ticket = PollTicket(cast.worker.worker_id)
    poll("wait=5", **{"asgi.scope": {POLL: ticket}})
    assert ticket.workspace_id == cast.workspace.id


def test_its_lane_learns_of_the_pools_whose_runs_the_worker_could_take_now(cast, poll, queue):
    worker = Worker.objects.filter(id=cast.worker.worker_id)
    pool_id = add_pool(cast, cast.worker.worker_id)

    def pools():
        ticket = PollTicket(cast.worker.worker_id)
        assert poll("wait=5", **{"asgi.scope": {POLL: ticket}})["runs"] == []
        return list(ticket.pool_ids)

    assert pools() == [pool_id]
    for column in ("disabled_at", "limited_until"):
        worker.update(**{column: Now() + timedelta(hours=1)})
        assert pools() == []
        worker.update(**{column: None})
    run_id = queue()["id"]
    url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{run_id}"
    client = cast.worker_client()
    assert client.post(f"{url}/claim", {"claimId": "mine"}).status_code == 200
    assert pools() == []
    worker.update(max_concurrency=2)
    assert pools() == [pool_id]


def test_a_stream_s_lane_learns_whose_turn_it_is(cast):
    host, ticket = cast.host(), WorkerStreamTicket()
    url = f"/api/v1/workers/{host.worker_id}/events/stream"
    for token in (host.operator_token, cast.mint("pwk", role="admin")):
        ticket.workspace_id = None
        environ: Any = {"asgi.scope": {STREAM: ticket}}
        answer = bearer(token).get(url, **environ)
        assert answer.status_code == 200
        assert ticket.workspace_id == cast.workspace.id


def test_a_run_comes_with_all_that_it_takes(cast, poll):
    client = cast.client(cast.owner)
    trigger = client.post(
        f"/api/v1/environments/{cast.environment.id}/triggers",
        {
            "name": "Nightly",
            "prompt": "Report.\n",
            "mcpUrl": "https://mcp.example/v1?a=b",
            "mcpHeaders": {
                "X-Api-Key": "a-planted-key",
                "Authorization": "Bearer a-planted-bearer",
            },
            "model": "claude-opus",
            "timeoutSeconds": 60,
            "workerId": str(cast.worker.worker_id),
        },
    ).json()
    run = client.post(f"/api/v1/triggers/{trigger['id']}/run", {"payload": {"a": [1]}}).json()
    assert poll()["runs"] == [
        {
            "id": run["id"],
            "triggerId": trigger["id"],
            "triggerName": "Nightly",
            "prompt": "Report.\n",
            "mcpUrl": "https://mcp.example/v1?a=b",
            "headersExpireAt": None,
            "mcpHeaders": {
                "X-Api-Key": "a-planted-key",
                "Authorization": "Bearer a-planted-bearer",
            },
            "model": "claude-opus",
            "timeoutSeconds": 60,
            "payload": {"a": [1]},
            "outputSchema": None,
            "retryAfterEffects": False,
            "retryMode": "restart",
            "resumeSessionId": None,
            "resumeUntil": None,
            "maxCostUsd": None,
            # A person has started the run.
            "recordEvents": "always",
            "attempt": 1,
            "queuedAt": run["queuedAt"],
        }
    ]


def test_without_headers_model_and_payload_they_are_empty(queue, poll):
    queue()
    (run,) = poll()["runs"]
    assert (run["mcpHeaders"], run["model"], run["payload"]) == ({}, None, None)


def test_polling_again_hands_the_same_run_out_again(queue, poll):
    queue()
    assert poll()["runs"] == poll()["runs"]
    assert Run.objects.get().status == "queued"


class TestItHandsOutNo:
    def ids(self, answer):
        return [run["id"] for run in answer["runs"]]

    def test_more_than_there_is_room_for(self, cast, queue, poll):
        runs = [queue()["id"] for _ in range(3)]
        assert self.ids(poll()) == runs[:1]
        allow(cast.worker.worker_id, 2)
        assert self.ids(poll()) == runs[:2]

    def test_run_while_all_places_are_taken(self, cast, queue, poll):
        held = queue()["id"]
        queue()
        url = f"/api/v1/workers/{cast.worker.worker_id}/runs/{held}/claim"
        assert cast.worker_client().post(url, {}).status_code == 200
        assert poll()["runs"] == []

    def test_run_to_a_disabled_worker(self, queue, poll):
        queue()
        Worker.objects.update(disabled_at=Now())
        assert poll()["runs"] == []

    def test_run_that_is_not_due(self, queue, poll):
        queue()
        Run.objects.update(available_at="2099-01-01T00:00:00Z")
        assert poll()["runs"] == []

    def test_run_of_another_worker(self, cast, queue, poll):
        other = cast.register("host-2").worker_id
        queue(cast.add_trigger(worker_id=other))
        assert poll()["runs"] == []

    def test_run_that_was_canceled(self, cast, queue, poll):
        run_id = queue()["id"]
        cast.client(cast.owner).post(f"/api/v1/runs/{run_id}/cancel")
        assert poll()["runs"] == []

    def test_run_less_because_its_trigger_was_disabled(self, queue, poll):
        """A run that is queued already is handed out although its trigger is disabled."""
        run_id = queue()["id"]
        Trigger.objects.update(enabled=False)
        assert self.ids(poll()) == [run_id]


class TestItNotes:
    def worker(self):
        return Worker.objects.get()

    def test_that_the_worker_was_seen_at_most_every_ten_seconds(self, poll):
        poll()
        first = self.worker().last_seen_at
        poll()
        assert self.worker().last_seen_at == first
        Worker.objects.update(last_seen_at="2026-01-01T00:00:00Z")
        poll()
        assert self.worker().last_seen_at.year > 2000
        assert self.worker().last_seen_at != first

    @pytest.mark.parametrize("version", ["2.0.0", "2.0.0-rc.1+build_7", "x" * 64])
    def test_a_sane_version(self, poll, version):
        poll(HTTP_X_PIPEDAI_WORKER_VERSION=version)
        assert self.worker().version == version

    @pytest.mark.parametrize("version", ["", " ", "x" * 65, "2.0 beta", "2.0\n", "é", "<b>", "٣"])
    def test_no_other(self, poll, version):
        poll(HTTP_X_PIPEDAI_WORKER_VERSION=version)
        assert self.worker().version == "1.0.0"

    def test_a_new_version_even_if_it_was_seen_lately(self, poll):
        poll()
        poll(HTTP_X_PIPEDAI_WORKER_VERSION="2.0.0")
        assert self.worker().version == "2.0.0"


@pytest.mark.parametrize("runs", [0, 1])
def test_the_log_has_how_many_runs_it_brought(cast, queue, url, runs):
    for _ in range(runs):
        queue()
    said: dict[str, int] = {}
    cast.worker_client().get(url, **{"asgi.scope": {LOG: said}})
    assert said["runs"] == runs


@pytest.mark.parametrize("wait", ["0", "1", "30", "07"])
def test_these_are_waits(poll, queue, wait):
    queue()
    assert len(poll(f"wait={wait}")["runs"]) == 1


@pytest.mark.parametrize("wait", ["31", "-1", "x", "", "1.5", "1e1", "100", "５", "null", " 5"])
def test_any_other_is_refused(cast, url, wait):
    response = cast.worker_client().get(url, {"wait": wait})
    assert (response.status_code, response.json()) == (
        400,
        invalid({"wait": ["Must be a whole number from 0 to 30."]}),
    )


def test_the_time_is_the_databases(poll):
    before = iso_time(database_now())
    told = poll()["serverTime"]
    assert before <= told <= iso_time(database_now())


def test_a_workspace_that_does_not_read_its_answers_is_made_small_ones(cast, url, queue):
    prompt = "x" * 50_000
    trigger_id = cast.add_trigger(prompt=prompt)
    allow(cast.worker.worker_id, 5)
    for _ in range(3):
        queue(trigger_id)
    client, budget = cast.worker_client(), MemoryBudget()
    unread, asking = Holding(budget, "192.0.2.1"), Holding(budget, "192.0.2.1")
    scope = {"asgi.scope": {HOLDING: asking}}
    unread.join(cast.workspace.id)
    unread.take(7 * MIB)
    assert len(client.get(url, **scope).json()["runs"]) == 1
    unread.leave()
    assert len(client.get(url, **scope).json()["runs"]) == 3
    asking.leave()
