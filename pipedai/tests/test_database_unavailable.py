"""What the database can't do is a 503 that says so, with one log line and nothing half done."""

import asyncio
import html
import os
import select
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.db import DatabaseError, connection
from psycopg import AsyncConnection

from pipedai.api.exceptions import unavailable
from pipedai.embedded.cluster import SUPERUSER
from pipedai.embedded.server import EmbeddedPostgres
from pipedai.server.heart import Heart
from pipedai.server.tests.web_process import WebProcess, serving
from pipedai.sql import sqlstate
from testing.processes.own_postgres import own_postgres
from triggers.runs.reachability import beat_of_this_process, gap_seconds

AWAY = {
    "error": "The database can't do this at the moment: try again.",
    "code": "database_unavailable",
}
DATABASE = "pipedai"
COUNTING = """
SELECT count(*) FROM web_heartbeat
WHERE id = %(id)s AND beat_at > statement_timestamp() - make_interval(secs => %(gap)s)
"""
# The id of no session, of the length that Django looks up.
SESSION = "x" * 43


@pytest.fixture(scope="module")
def postgres(kept_cluster: Path) -> Iterator[EmbeddedPostgres]:
    """Makes a database server for this module alone, with the schema in it."""
    with own_postgres(kept_cluster) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def web(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebProcess]:
    settings = {"DATABASE_URL": postgres.url(), "DJANGO_SETTINGS_MODULE": "testing.settings"}
    folder = tmp_path_factory.mktemp("web")
    with serving(folder, "pipedai.asgi:application", **settings) as served:
        yield served


@pytest.fixture(scope="module")
def owner(web: WebProcess) -> Iterator[httpx.Client]:
    """Registers a user, and returns a client with the session."""
    with httpx.Client(base_url=f"http://127.0.0.1:{web.port}/api/v1", timeout=60) as http:
        user = {"email": "owner@example.com", "password": "correct horse battery"}
        assert http.post("/auth/register", json=user).is_success
        yield http


@pytest.fixture(scope="module")
def environment(owner: httpx.Client) -> str:
    workspace = owner.post("/workspaces", json={"name": "Acme"}).json()
    path = f"/workspaces/{workspace['id']}/environments"
    return f"/environments/{owner.post(path, json={'name': 'prod'}).json()['id']}"


@contextmanager
def superuser(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    params = postgres.connection_params(role=SUPERUSER)
    with psycopg.connect(**params, autocommit=True) as connection:
        yield connection


def is_refused(web: WebProcess, answer: httpx.Response, sqlstate: str | None) -> bool:
    """Whether the answer is the 503, and the request left one line of its own with that SQLSTATE and no traceback."""
    assert (answer.status_code, answer.json()) == (503, AWAY)
    assert answer.headers["Retry-After"] == "5"
    lines = [
        line
        for line in web.lines()
        if line.get("request_id") == answer.headers["X-Request-Id"] and line["level"] != "info"
    ]
    assert not any("exception" in line for line in lines)
    (said,) = [line for line in lines if line["event"] == "database.unavailable"]
    assert said["sqlstate"] == sqlstate
    assert [line["event"] for line in lines if line is not said] in ([], ["request"])
    return True


def wait_until_back(owner: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while owner.get("/health").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_session_that_is_ended_in_the_middle(postgres, web, owner, environment) -> None:
    with superuser(postgres) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN; SELECT FROM environment FOR UPDATE")
        changing = pool.submit(owner.patch, environment, json={"name": "other"})
        ended = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        with superuser(postgres) as third:
            while not third.execute(ended).fetchall():
                time.sleep(0.01)
        answer = changing.result(60)
        other.execute("ROLLBACK")
    assert is_refused(web, answer, "57P01")
    assert owner.get(environment).json()["name"] == "prod"


@pytest.mark.django_db
def test_a_session_that_stood_still_in_its_transaction() -> None:
    stalled = connection.copy()
    try:
        with stalled.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 300")
            stalled.set_autocommit(False)
            cursor.execute("SELECT 1")
            # The socket has something to read when the server ends the session.
            select.select([stalled.connection], [], [], 60)
            with pytest.raises(DatabaseError) as caught:
                cursor.execute("SELECT 1")
    finally:
        stalled.close()
    assert sqlstate(caught.value) == "25P03"
    refused = unavailable(caught.value)
    assert refused is not None
    assert refused.body() == AWAY


def test_all_connections_are_taken(postgres, web, owner, environment) -> None:
    with superuser(postgres) as admin:
        admin.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT 0")
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'pipedai'"
        )
        try:
            assert is_refused(web, owner.get(environment), None)
            health = owner.get("/health")
            assert (health.status_code, health.json()["code"]) == (503, "database_unavailable")
        finally:
            admin.execute(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1")
    wait_until_back(owner)
    assert owner.get(environment).status_code == 200


@pytest.fixture
def tiny_disk(postgres: EmbeddedPostgres) -> Iterator[Path]:
    """Mounts a file system of 2 MB that the server may write to."""
    folder = postgres.layout.data_dir / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("Only root on a machine that lets it mount a tmpfs can fill a small disk.")
    user = postgres.layout.server_user
    os.chown(folder, user.uid, user.gid)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def count(owner: httpx.Client, environment: str) -> int:
    return len(owner.get(f"{environment}/triggers").json()["items"])


def test_the_disk_is_full(postgres, web, owner, environment, tiny_disk) -> None:
    with superuser(postgres) as admin:
        admin.execute(f"CREATE TABLESPACE tiny LOCATION '{tiny_disk}'")
        admin.execute("ALTER TABLE trigger_revision SET TABLESPACE tiny")
        room = tiny_disk / "full"
        trigger = {
            "name": "t",
            "prompt": os.urandom(30_000).hex(),
            "mcpUrl": "https://mcp.example.com/",
        }
        before = count(owner, environment)
        try:
            room.write_bytes(
                b"x" * (os.statvfs(tiny_disk).f_bavail * os.statvfs(tiny_disk).f_bsize)
            )
            answers = [owner.post(f"{environment}/triggers", json=trigger) for _ in range(3)]
            assert is_refused(web, answers[-1], "53100")
            made = sum(answer.is_success for answer in answers)
            assert count(owner, environment) == before + made
            room.unlink()
            assert owner.post(f"{environment}/triggers", json=trigger).status_code == 201
        finally:
            admin.execute("ALTER TABLE trigger_revision SET TABLESPACE pg_default")
            admin.execute("DROP TABLESPACE tiny")


def test_the_node_is_a_standby(postgres, web, owner, environment) -> None:
    key = owner.post(
        f"{environment}/api-keys", json={"name": "script", "prefix": "pwk", "role": "viewer"}
    )
    bearer = {"Authorization": f"Bearer {key.json()['token']}"}
    postgres.stop()
    signal = postgres.layout.cluster / "standby.signal"
    signal.touch()
    os.chown(signal, postgres.layout.server_user.uid, postgres.layout.server_user.gid)
    try:
        postgres.ensure_running()
        health = owner.get("/health")
        assert (health.status_code, health.json()["error"]) == (503, "The database is read-only.")
        assert owner.get("/health/live").status_code == 200
        assert is_refused(web, owner.patch(environment, json={"name": "other"}), "25006")
        assert owner.get(environment).status_code == 200
        anonymous = httpx.get(f"{owner.base_url}{environment.lstrip('/')}", headers=bearer)
        assert anonymous.status_code == 200, anonymous.text
    finally:
        postgres.stop()
        signal.unlink(missing_ok=True)
        postgres.ensure_running()
    wait_until_back(owner)
    assert owner.patch(environment, json={"name": "prod"}).status_code == 200


def assert_is_page(web: WebProcess, page: httpx.Response) -> None:
    """Asserts that a page says that the database is away, and that its request left one line of its own."""
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Cache-Control"] == "no-store"
    assert AWAY["error"] in html.unescape(page.text)
    assert "/static/pipedai/style.css" in page.text
    request_id = page.headers["X-Request-Id"]
    # The server writes this line after it has sent the page.
    web.wait_for_line(event="request", request_id=request_id)
    said = [line["event"] for line in web.lines() if line.get("request_id") == request_id]
    assert said == ["database.unavailable", "request"]


def test_a_heartbeat_whose_commit_waits_for_a_standby_does_not_count_when_it_becomes_visible(
    postgres, settings
) -> None:
    settings.RUN_LEASE_SECONDS = 1
    gap = gap_seconds()

    async def connect() -> AsyncConnection:
        # The servers of tests run without synchronous commits.
        durable = {**postgres.connection_params(), "options": "-c synchronous_commit=on"}
        return await AsyncConnection.connect(**durable, autocommit=True)

    async def until_commits_wait() -> None:
        """Returns when the server has heard of its new setting."""
        async with await connect() as probe, asyncio.timeout(60):
            with suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(1):
                        await probe.execute("SELECT pg_logical_emit_message(true, '', '')")

    async def failed() -> None:
        failures.append(time.monotonic())

    async def beating() -> list[int]:
        """Beats until a beat was canceled. Returns how many beats counted, each time that somebody looked."""
        await until_commits_wait()
        heart = asyncio.create_task(Heart(connect, failed, [lambda: beat]).run())
        counted: list[int] = []
        async with await connect() as reader, asyncio.timeout(60):
            while True:
                canceled = bool(failures)
                cursor = await reader.execute(COUNTING, {"gap": gap, "id": beat.params["id"]})
                counted += await cursor.fetchone() or ()
                if canceled:
                    break
                await asyncio.sleep(0.05)
            cursor = await reader.execute(COUNTING, {"gap": 3600, "id": beat.params["id"]})
            assert await cursor.fetchone() == (1,)
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
        return counted

    failures: list[float] = []
    beat = replace(beat_of_this_process(), patience_seconds=gap * 2)
    with superuser(postgres) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            assert set(asyncio.run(beating())) == {0}
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")


def test_it_is_stopped(postgres, web, owner, environment) -> None:
    postgres.stop()
    try:
        assert is_refused(web, owner.get(environment), None)
        site = f"http://127.0.0.1:{web.port}"
        assert_is_page(web, owner.get(f"{site}/console/pair"))
        with httpx.Client(cookies={"staff_session": SESSION}, timeout=60) as staff:
            assert_is_page(web, staff.get(f"{site}/admin/"))
    finally:
        postgres.ensure_running()
    wait_until_back(owner)
