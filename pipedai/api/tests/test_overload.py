"""An act that needs a locked row is answered 503 in time, with nothing done, and other requests are served."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from django.db import OperationalError, connection, transaction
from structlog.testing import capture_logs

from pipedai import wakeups
from pipedai.sql import execute
from testing.probes.tables import contents
from testing.processes.racing import Started, accepted
from testing.processes.stuck_rows import all_rows_of, held, shorten_timeouts
from testing.processes.web_process import serve
from testing.world.cases import cases
from testing.world.routes import ROUTES
from triggers.models import Run

BUSY = {"error": "The service is busy: try again.", "code": "overloaded"}
LATER = "9999-01-01"

# The acts, and the bookkeeping, that need the rows of each table.
NEEDED = {
    "user_account": [
        "POST auth/login",
        "POST auth/change-password",
        "POST workspaces/:workspace/environments",
    ],
    "session": ["POST auth/logout", "POST auth/change-password"],
    "environment": [
        "PATCH environments/:environment",
        "DELETE environments/:environment",
        "POST environments/:environment/members",
        "PATCH environments/:environment/members/:user",
        "DELETE environments/:environment/members/:user",
        "POST environments/:environment/api-keys",
        "POST environments/:environment/triggers",
        "POST environments/:environment/enrollments",
        "POST triggers/:trigger/run",
        "POST triggers/:trigger/test-webhook",
        "POST workers/register",
        "POST enrollments/redeem",
        "POST enrollments/key",
        "PATCH triggers/:trigger",
        "DELETE workers/:worker",
    ],
    "membership": ["DELETE environments/:environment/members/:user"],
    "api_key": [
        "DELETE environments/:environment/api-keys/:key",
        "POST workers/register",
        "POST workspaces/:workspace/workers/registration-token",
    ],
    "enrollment": [
        "DELETE environments/:environment/enrollments/:enrollment",
        "POST enrollments/redeem",
        "POST enrollments/key",
    ],
    "worker": [
        "PATCH workers/:worker",
        "POST workers/:worker/revoke-token",
        "POST workspaces/:workspace/workers/:worker/disable",
        "POST environments/:environment/triggers",
        "POST workers/:worker/runs/:run/claim",
    ],
    "trigger": [
        "PATCH triggers/:trigger",
        "DELETE triggers/:trigger",
        "POST triggers/:trigger/rotate-mcp-token",
        "POST triggers/:trigger/run",
        "POST triggers/:trigger/test-webhook",
    ],
    "data_key": ["POST triggers/:trigger/rotate-mcp-token"],
    "run": [
        "POST runs/:run/cancel",
        "POST workers/:worker/runs/:run/claim",
        "POST workers/:worker/runs/:run/start",
        "POST workers/:worker/runs/:run/heartbeat",
        "POST workers/:worker/runs/:run/complete",
    ],
    "delivery": ["POST deliveries/:delivery/redeliver"],
}
BY_NAME = {str(route): route for route in ROUTES}


pytestmark = pytest.mark.usefixtures("without_throttles")


@pytest.fixture
def without_throttles(settings):
    settings.THROTTLES_ENABLED = False


@pytest.fixture
def cast(committed_cast):
    return committed_cast


@pytest.fixture
def stage(committed_stage):
    return committed_stage


def authorization(token):
    return {"Authorization": f"Bearer {token}"}


def run_once(client, cast):
    path = f"/api/v1/triggers/{cast.trigger_id}/run"
    return client.post(path, headers={"Idempotency-Key": "mine"})


def rows():
    """Returns everything that is in the database."""
    return {table: counted for table, counted in contents().items() if counted}


@cases("table", NEEDED)
def test_an_act_that_needs_the_row_is_503_in_time_and_nothing_is_half_done(stage, table):
    cast = stage.cast
    # With these values bookkeeping has nothing to write.
    execute("UPDATE worker SET last_seen_at = %(at)s", {"at": LATER})
    calls = []
    for name in NEEDED[table]:
        route = BY_NAME[name]
        data = route.body(cast)
        calls.append((name, route, route.caller(cast), route.url(stage), data))
    for used in ("api_key", "session"):
        execute(f"UPDATE {used} SET last_used_at = %(at)s", {"at": LATER})
    shorten_timeouts()
    before = rows()
    for name, route, client, url, data in calls:
        with held(all_rows_of(table)), capture_logs() as logged:
            answer = getattr(client, route.method.lower())(url, data)
        assert (name, answer.status_code) == (name, 503)
        assert (answer.json(), answer["Retry-After"]) == (BUSY, "1")
        assert logged == [
            {"event": "database.timed_out", "error": "LockNotAvailable", "log_level": "warning"}
        ]
        assert rows() == before, name


def test_so_is_a_poll_whose_bookkeeping_needs_it(cast):
    client, path = cast.worker_client(), f"workers/{cast.worker.worker_id}/poll"
    execute("UPDATE worker SET is_streamed = true", {})
    shorten_timeouts()
    before = rows()
    with held("SELECT FROM worker FOR NO KEY UPDATE"):  # Another act would take this lock.
        assert client.get(f"/api/v1/{path}").status_code == 503
    assert rows() == before, "no event says that the worker is back"
    assert client.get(f"/api/v1/{path}").status_code == 200


def test_readers_are_not_held_up(cast):
    client = cast.client(cast.viewer)
    shorten_timeouts()
    with held(all_rows_of("environment")):
        assert client.get(f"/api/v1/environments/{cast.environment.id}").status_code == 200


def test_the_same_call_does_it_once_the_row_is_free(cast):
    client = cast.key_client()
    shorten_timeouts()

    with held(all_rows_of("trigger")):
        assert run_once(client, cast).status_code == 503
    assert run_once(client, cast).status_code == 201
    assert run_once(client, cast).status_code == 200
    assert Run.objects.count() == 1


def test_of_two_with_one_key_the_one_that_waits_too_long_is_503_and_then_finds_the_run(cast):
    client = cast.key_client()
    shorten_timeouts()
    holding, go_on = threading.Event(), threading.Event()

    def slow_twin():
        with transaction.atomic():
            answer = run_once(client, cast)
            holding.set()
            assert go_on.wait(60)
        return answer.status_code

    twin = Started(slow_twin)
    assert holding.wait(60)
    assert run_once(client, cast).status_code == 503
    go_on.set()
    assert twin.answer() == 201
    again = run_once(client, cast)
    assert (again.status_code, again["Idempotent-Replayed"]) == (200, "true")


def test_a_statement_that_takes_too_long_is_503(cast):
    client = cast.client(cast.admin)
    shorten_timeouts(lock="0", statement="500ms")
    before = rows()
    with held(all_rows_of("environment")), capture_logs() as logged:
        answer = client.patch(f"/api/v1/environments/{cast.environment.id}", {"name": "New"})
    assert (answer.status_code, answer.json()) == (503, BUSY)
    assert [(line["error"], line["log_level"]) for line in logged] == [("QueryCanceled", "warning")]
    assert rows() == before


@cases(
    ("name", "read"),
    [
        ("POST environments/:environment/triggers", "run"),
        ("POST triggers/:trigger/test-webhook", "delivery_attempt"),
        ("POST deliveries/:delivery/redeliver", "delivery_attempt"),
    ],
)
def test_what_is_made_is_undone_when_the_answer_can_not_be_read(stage, name, read):
    """If it stayed, the client would make another one, because it is told to try again."""
    cast = stage.cast
    route = BY_NAME[name]
    client = cast.client(cast.admin)
    shorten_timeouts()
    before = rows()
    with held(f'LOCK TABLE "{read}" IN ACCESS EXCLUSIVE MODE'):
        assert route.send(client, route.url(stage), cast).status_code == 503
    assert rows() == before
    assert route.send(client, route.url(stage), cast).status_code == 201


def test_a_deadlock_is_503_too_and_an_error_in_the_log(cast):
    client = cast.client(cast.admin)

    def patch():
        with capture_logs() as logged:
            answer = client.patch(f"/api/v1/triggers/{cast.trigger_id}", {"name": "New"})
        return answer, logged

    # PostgreSQL ends the session that first notices the deadlock, so we repeat until it is the wanted one.
    for _ in range(20):
        other = connection.copy()
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(all_rows_of("trigger"))
            patching = Started(patch)
            patching.wait_until_blocked()
            try:
                cursor.execute(all_rows_of("environment"))
            except OperationalError:
                other.rollback()
            (answered,) = accepted([patching.answer()])
            answer, logged = answered
        other.close()
        if answer.status_code != 200:
            break
    assert (answer.status_code, answer.json()) == (503, BUSY)
    (line,) = logged
    assert (line["log_level"], line["error"]) == ("error", "DeadlockDetected")
    assert line["exc_info"]


def test_a_notification_that_fails_after_the_commit_fails_no_act(cast, monkeypatch):
    """The act is committed. If the answer said that it failed, the client would do it again."""
    monkeypatch.setattr(wakeups, "CHANNEL", "x" * 100)
    with capture_logs() as logged:
        answer = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run")
    assert (answer.status_code, Run.objects.count()) == (201, 1)
    assert [line["event"] for line in logged] == ["wakeup.lost"]


def test_more_calls_on_a_stuck_row_than_threads_leave_the_others_their_turns(cast, tmp_path):
    """Without time-outs the first two would keep both threads for as long as the row is held."""
    key = cast.mint("pwk", role="admin")
    other = cast.mint_elsewhere("pwk")
    shorten_timeouts()
    database = connection.settings_dict["NAME"]
    log = tmp_path / "web.log"
    with (
        serve(database, log=log, WEB_THREADS="2", LOG_FORMAT="json") as server,
        ThreadPoolExecutor(10) as pool,
        httpx.Client(base_url=server.api, timeout=60) as http,
        held(all_rows_of("worker")),
        held(all_rows_of("trigger")),
    ):
        poll = f"/workers/{cast.worker.worker_id}/poll?wait=30"
        run = f"/triggers/{cast.trigger_id}/run"
        stuck = [pool.submit(http.post, run, headers=authorization(key)) for _ in range(4)]
        as_worker = authorization(cast.worker.worker_token)
        stuck += [pool.submit(http.get, poll, headers=as_worker) for _ in range(2)]
        elsewhere = f"/environments/{cast.strange_environment.id}/triggers"
        assert http.get(elsewhere, headers=authorization(other)).status_code == 200
        answers = [each.result() for each in stuck]
        assert Counter(answer.status_code for answer in answers) == {503: 6}
        assert {answer.json()["code"] for answer in answers} == {"overloaded"}
        assert http.get("/health").status_code == 200
    said = log.read_text()
    assert "Traceback" not in said
    assert said.count('"database.timed_out"') == 6
    assert Run.objects.count() == 0
