"""Waiting polls end to end: two web processes, the real endpoint and a real database (SPEC §5)."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import psycopg
import pytest

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.tests.web_process import serving

pytestmark = pytest.mark.slow


class Api:
    """The API as its clients see it, with one worker and its trigger."""

    def __init__(self, url: str, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._http = httpx.Client(base_url=url, timeout=90)
        self._pool = ThreadPoolExecutor(8)
        user = {"email": "owner@example.com", "password": "correct horse battery"}
        self.post("/auth/register", user)
        workspace = self.post("/workspaces", {"name": "Acme"})
        environment = self.post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        self._path = f"/environments/{environment['id']}"
        key = self.post(f"{self._path}/api-keys", {"name": "machine", "prefix": "wrk"})
        machine = {"token": key["token"], "hostname": "m", "os": "linux", "version": "1"}
        registered = self.post("/workers/register", machine)
        self.worker_id = registered["workerId"]
        self._bearer = {"Authorization": f"Bearer {registered['workerToken']}"}
        trigger = {
            "name": "t",
            "prompt": "p",
            "mcpUrl": "https://mcp.example.com/",
            "workerId": self.worker_id,
        }
        self.trigger_id = self.post(f"{self._path}/triggers", trigger)["id"]

    def close(self) -> None:
        self._pool.shutdown()
        self._http.close()

    def post(self, path: str, body: dict) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def run(self) -> str:
        return str(self.post(f"/triggers/{self.trigger_id}/run", {})["id"])

    def poll(self, wait: int) -> httpx.Response:
        # Each request has a new connection, so that both processes get some.
        url = f"{self._http.base_url}workers/{self.worker_id}/poll"
        return httpx.get(url, params={"wait": wait}, headers=self._bearer, timeout=90)

    def claim_next(self, claim_id: str, wait: int, **body: Any) -> httpx.Response:
        return httpx.post(
            f"{self._http.base_url}workers/{self.worker_id}/claim-next",
            json={"claimId": claim_id, "wait": wait, **body},
            headers=self._bearer,
            timeout=90,
        )

    def complete(self, run_id: str) -> None:
        answer = self._http.post(
            f"/workers/{self.worker_id}/runs/{run_id}/complete",
            json={"status": "succeeded"},
            headers=self._bearer,
        )
        assert answer.is_success, answer.text

    def start_poll(self, wait: int = 30) -> Any:
        """Starts a poll, and returns when the server has announced it to all processes and waits with it."""
        return self._start(self.poll, wait)

    def start_claim(self, claim_id: str, wait: int = 30, **body: Any) -> Any:
        """Starts a claim of the next run, and returns when the server has announced it and waits with it."""
        return self._start(self.claim_next, claim_id, wait, **body)

    def _start(self, call: Any, *arguments: Any, **body: Any) -> Any:
        with psycopg.connect(**self._postgres.connection_params(), autocommit=True) as connection:
            connection.execute("LISTEN pipedai")
            poll = self._pool.submit(call, *arguments, **body)
            with closing(connection.notifies(timeout=60)) as said:
                assert any(f"polling {self.worker_id}" in notify.payload for notify in said)
        return poll


@pytest.fixture(scope="module")
def api(postgres, tmp_path_factory):
    url = postgres.url()
    folder = tmp_path_factory.mktemp("web")
    app = "pipedai.asgi:application"
    environment = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "THROTTLES_ENABLED": "false"}
    with serving(folder, app, **environment) as web:
        api = Api(f"http://127.0.0.1:{web.port}/api/v1", postgres)
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
        f"/workers/{api.worker_id}/poll", params={"wait": "soon"}, headers=api._bearer
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
    poll = api.start_poll()
    with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
        (row,) = connection.execute("SELECT token_digest FROM worker").fetchall()
        connection.execute("UPDATE worker SET token_digest = NULL")
        connection.execute("SELECT pg_notify('pipedai', %s)", [f"changed {api.worker_id}"])
        assert poll.result(timeout=60).status_code == 401
        connection.execute("UPDATE worker SET token_digest = %s", row)
