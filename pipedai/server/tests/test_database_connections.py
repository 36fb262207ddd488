"""The threads keep their database connections, leak none, and replace them when the server was away."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pipedai.server.tests.web_process import parse, serving

THREADS = 3
# The name of the tests' own sessions, which the tests don't count: some may still be ending when the next one counts.
OBSERVER = "observer"


@pytest.fixture(scope="module")
def web(postgres, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    app = "pipedai.server.tests.database_app:application"
    environment = {"DATABASE_URL": postgres.url(), "WEB_THREADS": str(THREADS)}
    with serving(folder, app, **environment) as web:
        yield web


def get(web, path):
    """Sends one request, and returns the status and the JSON of its answer."""
    sent = f"GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    status, _, body = parse(web.exchange(sent))
    return status, json.loads(body)


def get_many(web, path, times=30):
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: get(web, path), range(times)))


def sessions(postgres):
    """Returns (application, state) of each session of the web process, but for the one that sends its heartbeats."""
    with psycopg.connect(
        **postgres.connection_params(), autocommit=True, application_name=OBSERVER
    ) as connection:
        return connection.execute(
            "SELECT application_name, state FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND application_name <> ALL(%s)",
            [[OBSERVER, "pipedai-heartbeat"]],
        ).fetchall()


def until_heard(postgres):
    deadline = time.monotonic() + 60
    while ("pipedai-listen", "idle") not in sessions(postgres):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_each_thread_keeps_one_connection(web, postgres):
    until_heard(postgres)
    answers = get_many(web, "backend") + get_many(web, "backend")
    assert {status for status, _ in answers} == {200}
    assert len({body["pid"] for _, body in answers}) == THREADS
    assert len(sessions(postgres)) == THREADS + 1


def test_a_crash_in_a_transaction_leaves_nothing_open(web, postgres):
    until_heard(postgres)
    answers = get_many(web, "crash")
    assert {status for status, _ in answers} == {500}
    assert {body["error"] for _, body in answers} == {"Internal server error"}
    for _, body in answers[:2]:
        line = web.wait_for_line(logger="django.request", request_id=body["requestId"])
        assert "RuntimeError" in line["exception"]
    assert {state for _, state in sessions(postgres)} <= {"idle"}
    assert len(sessions(postgres)) <= THREADS + 1


def test_no_request_fails_after_the_database_was_restarted(web, postgres):
    get_many(web, "backend")
    postgres.stop()
    postgres.ensure_running()
    assert {status for status, _ in get_many(web, "backend")} == {200}
    until_heard(postgres)
    assert len(sessions(postgres)) <= THREADS + 1


def test_no_request_fails_after_its_connection_was_ended(web, postgres):
    get_many(web, "backend")
    with psycopg.connect(**postgres.connection_params(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert {status for status, _ in get_many(web, "backend")} == {200}
    until_heard(postgres)


def test_requests_say_so_while_the_database_is_away_and_work_again_afterwards(web, postgres):
    get_many(web, "backend")
    postgres.stop()
    answers = get_many(web, "backend", times=4)
    assert {status for status, _ in answers} == {503}
    postgres.ensure_running()
    assert {status for status, _ in get_many(web, "backend")} == {200}
    until_heard(postgres)


def test_the_access_log_knows_the_route(web):
    get(web, "backend")
    assert web.wait_for_line(event="request", route="api/v1/backend")["status"] == 200
