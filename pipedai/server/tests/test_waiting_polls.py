"""Waiting polls end to end: two web processes, the real endpoint and a real database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.tests.web_process import WebProcess, serving


@dataclass(frozen=True)
class Worker:
    """A registered worker, and the header by which it authenticates itself."""

    id: str
    headers: dict[str, str]


class Api:
    """The API as its clients see it, with one worker and its trigger. `web` is the server."""

    def __init__(self, web: WebProcess, postgres: EmbeddedPostgres) -> None:
        self.web = web
        url = f"http://127.0.0.1:{web.port}/api/v1"
        self._postgres = postgres
        self._http = httpx.Client(base_url=url, timeout=90)
        self._pool = ThreadPoolExecutor(8)
        user = {"email": "owner@example.com", "password": "correct horse battery"}
        self.post("/auth/register", user)
        workspace = self.post("/workspaces", {"name": "Acme"})
        environment = self.post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        self._path = f"/environments/{environment['id']}"
        self.worker = self.register("m")
        self.worker_id = self.worker.id
        self.trigger_id = self.add_trigger(workerId=self.worker_id)

    def close(self) -> None:
        self._pool.shutdown()
        self._http.close()

    def post(self, path: str, body: dict, headers: dict[str, str] | None = None) -> Any:
        answer = self._http.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    def register(self, hostname: str, **key: Any) -> Worker:
        """Registers a worker with a new `wrk_` key, which has these fields besides."""
        named = {"name": "machine", "prefix": "wrk", **key}
        token = self.post(f"{self._path}/api-keys", named)["token"]
        machine = {"token": token, "hostname": hostname, "os": "linux", "version": "1"}
        registered = self.post("/workers/register", machine)
        headers = {"Authorization": f"Bearer {registered['workerToken']}"}
        return Worker(registered["workerId"], headers)

    def add_pool(self) -> str:
        return str(self.post(f"{self._path}/pools", {"name": "Any"})["id"])

    def add_trigger(self, **values: Any) -> str:
        trigger = {"name": "t", "prompt": "p", "mcpUrl": "https://mcp.example.com/", **values}
        return str(self.post(f"{self._path}/triggers", trigger)["id"])

    def run(self, trigger_id: str | None = None) -> str:
        return str(self.post(f"/triggers/{trigger_id or self.trigger_id}/run", {})["id"])

    def poll(self, wait: int, worker: Worker | None = None) -> httpx.Response:
        # Each request has a new connection, so that both processes get some.
        worker = worker or self.worker
        url = f"{self._http.base_url}workers/{worker.id}/poll"
        return httpx.get(url, params={"wait": wait}, headers=worker.headers, timeout=90)

    def claim_next(self, claim_id: str, wait: int, **body: Any) -> httpx.Response:
        return httpx.post(
            f"{self._http.base_url}workers/{self.worker.id}/claim-next",
            json={"claimId": claim_id, "wait": wait, **body},
            headers=self.worker.headers,
            timeout=90,
        )

    def complete(self, run_id: str) -> None:
        answer = self._http.post(
            f"/workers/{self.worker.id}/runs/{run_id}/complete",
            json={"status": "succeeded"},
            headers=self.worker.headers,
        )
        assert answer.is_success, answer.text

    def start_poll(self, wait: int = 30, worker: Worker | None = None) -> Any:
        """Starts a poll, and returns when the server has announced it to all processes and waits with it."""
        worker = worker or self.worker
        return self._start(worker, self.poll, wait, worker)

    def start_claim(self, claim_id: str, wait: int = 30, **body: Any) -> Any:
        """Starts a claim of the next run, and returns when the server has announced it and waits with it."""
        return self._start(self.worker, self.claim_next, claim_id, wait, **body)

    def _start(self, worker: Worker, call: Any, *arguments: Any, **body: Any) -> Any:
        with psycopg.connect(**self._postgres.connection_params(), autocommit=True) as connection:
            connection.execute("LISTEN pipedai")
            poll = self._pool.submit(call, *arguments, **body)
            with closing(connection.notifies(timeout=60)) as said:
                assert any(f"polling {worker.id}" in notify.payload for notify in said)
        return poll


@pytest.fixture(scope="module")
def api(postgres, tmp_path_factory):
    url = postgres.url()
    folder = tmp_path_factory.mktemp("web")
    app = "pipedai.asgi:application"
    environment = {
        "DATABASE_URL": url,
        "WEB_CONCURRENCY": "2",
        "DJANGO_SETTINGS_MODULE": "testing.settings",
    }
    with serving(folder, app, **environment) as web:
        api = Api(web, postgres)
        yield api
        api.close()


@pytest.fixture(autouse=True)
def _no_runs_left(api):
    yield
    for run in api.poll(0).json().get("runs", []):
        api.post(f"/runs/{run['id']}/cancel", {})


def test_a_run_wakes_a_waiting_poll(api):
    poll = api.start_poll()
    run_id = api.run()
    answer = poll.result(timeout=60)
    assert [run["id"] for run in answer.json()["runs"]] == [run_id]


def test_a_newer_poll_ends_the_older_whichever_process_it_reaches(api):
    polls = [api.start_poll() for _ in range(6)]
    for older in polls[:-1]:
        answer = older.result(timeout=60)
        assert answer.status_code == 200
        assert answer.json()["runs"] == []
    assert not polls[-1].done()
    run_id = api.run()
    assert [run["id"] for run in polls[-1].result(timeout=60).json()["runs"]] == [run_id]


def test_a_poll_without_runs_is_answered_when_its_time_is_up(api):
    assert api.poll(1).json()["runs"] == []


def test_a_run_that_becomes_due_later_wakes_it(api, postgres):
    with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
        run_id = api.run()
        # On a busy machine the run may come due before the poll waits. Then we try again with more time.
        for seconds in (1.5, 5, 20):
            # We insert the run directly, like a retry, so that no notification tells the poll when it comes due.
            connection.execute(
                "UPDATE run SET available_at = now() + %s * interval '1 s' WHERE id = %s",
                [seconds, run_id],
            )
            poll = api.start_poll()
            if not poll.done():
                break
        assert [run["id"] for run in poll.result(timeout=60).json()["runs"]] == [run_id]


def test_a_worker_without_room_sleeps_through_runs_of_its_pool_until_its_own_run_ends(api):
    pool_id = api.add_pool()
    worker = api.register("pooled", poolIds=[pool_id])
    trigger_id = api.add_trigger(poolId=pool_id)
    path = f"/workers/{worker.id}"
    held = f"{path}/runs/{api.run(trigger_id)}"
    api.post(f"{held}/claim", {"claimId": "mine"}, worker.headers)
    poll, other = api.start_poll(worker=worker), api.start_poll()
    waiting = api.run(trigger_id)
    # The notification of this run comes after the one to the pool. When its worker has it, the poll has slept on.
    api.run()
    assert len(other.result(timeout=60).json()["runs"]) == 1
    assert not poll.done()
    api.post(f"{held}/complete", {"status": "succeeded"}, worker.headers)
    assert [run["id"] for run in poll.result(timeout=60).json()["runs"]] == [waiting]
    # The server asked for it when it began, and when the run had ended.
    assert api.web.wait_for_line(path=f"/api/v1{path}/poll", runs=1)["asked"] == 2


def test_a_run_wakes_a_waiting_claim_of_the_next_run(api):
    claim = api.start_claim("mine", start=True)
    run_id = api.run()
    run = claim.result(timeout=60).json()["run"]
    assert (run["id"], run["status"]) == (run_id, "running")
    # The answer may have been lost: the call is repeated while the worker holds the run, waiting or not.
    for wait in (0, 30):
        assert api.claim_next("mine", wait).json()["run"]["id"] == run_id
    api.complete(run_id)


def test_of_claims_that_wait_with_one_claim_id_the_newest_gets_the_run(api):
    claims = [api.start_claim("mine") for _ in range(4)]
    run_id = api.run()
    assert [claim.result(timeout=60).json()["run"] for claim in claims[:-1]] == [None] * 3
    assert claims[-1].result(timeout=60).json()["run"]["id"] == run_id
    api.complete(run_id)


def test_a_poll_and_a_claim_of_the_next_run_end_each_other(api):
    poll = api.start_poll()
    claim = api.start_claim("mine")
    assert poll.result(timeout=60).json()["runs"] == []
    newer = api.start_poll(wait=1)
    assert claim.result(timeout=60).json()["run"] is None
    assert newer.result(timeout=60).json()["runs"] == []


def test_a_bad_wait_is_a_field_error(api):
    answer = api._http.get(
        f"/workers/{api.worker_id}/poll", params={"wait": "soon"}, headers=api.worker.headers
    )
    assert answer.status_code == 400
    assert "wait" in answer.json()["details"]["fieldErrors"]


def test_a_poll_of_somebody_else_is_refused_without_waiting(api):
    answer = httpx.get(
        f"{api._http.base_url}workers/{api.worker_id}/poll",
        params={"wait": 30},
        headers={"Authorization": "Bearer wkt_no"},
    )
    assert answer.status_code == 401


def test_a_waiting_poll_whose_token_dies_is_a_401(api, postgres):
    poll, worker = api.start_poll(), {"id": api.worker_id}
    with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
        told = "SELECT token_digest AS digest FROM worker WHERE id = %(id)s"
        (row,) = connection.execute(told, worker).fetchall()
        connection.execute("UPDATE worker SET token_digest = NULL WHERE id = %(id)s", worker)
        connection.execute("SELECT pg_notify('pipedai', %s)", [f"changed {api.worker_id}"])
        assert poll.result(timeout=60).status_code == 401
        again = "UPDATE worker SET token_digest = %(digest)s WHERE id = %(id)s"
        connection.execute(again, {**worker, "digest": row[0]})
