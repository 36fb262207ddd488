"""All processes go on working after PostgreSQL was away for ten seconds."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.tests.web_process import WebProcess, serving
from testing.processes.own_postgres import own_postgres
from testing.processes.warm_start import SERVICE

pytestmark = pytest.mark.long

OUTAGE_SECONDS = 10.0


@pytest.fixture
def postgres(kept_cluster: Path) -> Iterator[EmbeddedPostgres]:
    """Makes a database server for this test alone, which starts and stops it."""
    with own_postgres(kept_cluster) as postgres:
        yield postgres


def test_all_stay_up_say_it_once_and_catch_up(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": postgres.url(), "DJANGO_SETTINGS_MODULE": "testing.settings"}
    with (
        serving(tmp_path, "pipedai.asgi:application", **environment) as web,
        _scheduler(tmp_path, environment) as scheduler,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=f"http://127.0.0.1:{web.port}/api/v1", timeout=90) as http,
    ):
        api = _Api(http)
        scheduler.wait_for("scheduler.started")
        # A mail that was under way when the database stopped would be another complaint.
        scheduler.wait_for("account_mail.sent")
        with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
            connection.execute("LISTEN pipedai")
            asked = time.monotonic()
            waiting = pool.submit(api.poll, 30)
            with closing(connection.notifies(timeout=60)) as said:
                assert any(each.payload.startswith("polling ") for each in said)
        scheduler_lines, web_lines = len(scheduler.lines()), len(web.lines())

        postgres.stop()
        went = time.monotonic()
        scheduler.wait_for("database.away")
        assert http.get("/health", headers={"X-Request-Id": "health"}).status_code == 503
        refused = http.get("/auth/me", headers={"X-Request-Id": "me"})
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert refused.headers["Retry-After"] == "5"
        time.sleep(max(0.0, went + OUTAGE_SECONDS - time.monotonic()))
        assert web.process.poll() is None
        assert scheduler.process.poll() is None
        assert not waiting.done()
        postgres.ensure_running()

        # This makes the trigger's tick come due, as if its time had come while the database was away.
        with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
            connection.execute("UPDATE trigger SET next_run_at = next_run_at - interval '1 hour'")
        came_due = time.monotonic() - asked
        handed_out = waiting.result(timeout=60)
        late = handed_out.headers["X-Request-Id"] if handed_out.status_code == 503 else None
        if (late and came_due > 11) or (came_due > 18 and not handed_out.json()["runs"]):
            # If PostgreSQL took long to come back, the poll had looked by itself meanwhile, or its time was over.
            handed_out = api.poll(30)
        assert handed_out.status_code == 200
        (run,) = handed_out.json()["runs"]
        assert run["triggerId"] == api.trigger_id
        scheduler.wait_for("database.back")
        assert http.get("/health").status_code == 200

        complaints = [x for x in scheduler.lines()[scheduler_lines:] if x["level"] != "info"]
        assert [line["event"] for line in complaints] == ["database.away"]
        _assert_no_storm(web, web_lines, refused={"health", "me"} | ({late} if late else set()))
        scheduler.process.send_signal(signal.SIGTERM)
        assert scheduler.process.wait(60) == 0  # A forced end after 4 s would exit with 1.


def _assert_no_storm(web: WebProcess, since: int, *, refused: set[str]) -> None:
    """Asserts that listener and heartbeat logged the outage once each, and all else is a line or two for each of the
    refused requests, which are named by their ids.
    """
    complaints = [line for line in web.lines()[since:] if line["level"] != "info"]
    said = [line for line in complaints if "not hearing" in line["event"]]
    assert len(said) == 1
    assert sum(line["event"] == "heartbeat.failed" for line in complaints) == 1
    assert not any("exception" in line for line in complaints)
    others = [line for line in complaints if line not in said and "request_id" in line]
    assert {line["request_id"] for line in others} == refused, others
    assert len(others) <= 2 * len(refused), others


class _Process:
    """A scheduler process and its log."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self._output.read_text().splitlines()
            if line.startswith("{")
        ]

    def wait_for(self, event: str) -> None:
        _wait(lambda: any(line["event"] == event for line in self.lines()), self._output)


@contextmanager
def _scheduler(folder: Path, environment: dict[str, str]) -> Iterator[_Process]:
    output = folder / "scheduler.log"
    with output.open("wb") as file:
        process = SERVICE.start(
            ["manage.py", "runscheduler"],
            environment={**os.environ, **environment, "LOG_FORMAT": "json"},
            output=file.fileno(),
        )
    try:
        yield _Process(process, output)
    finally:
        process.kill()
        process.wait()


class _Api:
    """A worker, and its hourly trigger, which comes due half an hour from now."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        user = {"email": "owner@example.com", "password": "correct horse battery"}
        self._post("/auth/register", user)
        workspace = self._post("/workspaces", {"name": "Acme"})
        environment = self._post(f"/workspaces/{workspace['id']}/environments", {"name": "prod"})
        path = f"/environments/{environment['id']}"
        key = self._post(f"{path}/api-keys", {"name": "machine", "prefix": "wrk"})
        machine = {"token": key["token"], "hostname": "m", "os": "linux", "version": "1"}
        self._worker = self._post("/workers/register", machine)
        minute = (datetime.now(UTC).minute + 30) % 60
        trigger = {
            "name": "t", "prompt": "p", "mcpUrl": "https://mcp.example.com/",
            "workerId": self._worker["workerId"], "schedule": f"{minute} * * * *",
        }  # fmt: skip
        self.trigger_id = self._post(f"{path}/triggers", trigger)["id"]

    def poll(self, wait: int) -> httpx.Response:
        """Polls on a new connection."""
        return httpx.get(
            f"{self._http.base_url}workers/{self._worker['workerId']}/poll",
            params={"wait": wait},
            headers={"Authorization": f"Bearer {self._worker['workerToken']}"},
            timeout=90,
        )

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


def _wait(until: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
