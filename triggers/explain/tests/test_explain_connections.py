"""A run whose trigger's connection has no fresh token waits, and the explanation says what helps."""

from datetime import timedelta
from typing import Any

import pytest

from pipedai.sql import database_now
from testing.processes.explain_calls import Calls, only
from testing.world.cast import Cast
from testing.world.connections import add_connection, add_oauth_connection, ago, lose_connection
from triggers.models import SchedulerHeartbeat
from workspaces.models import Connection


@pytest.fixture(autouse=True)
def _scheduler(db: None) -> None:
    SchedulerHeartbeat.objects.create(host="h", pid=1, beat_at=database_now())


def _waiting(calls: Calls, connection: Connection) -> str:
    calls.change_trigger(connectionId=str(connection.id))
    return calls.queue()


def _told(calls: Calls, run_id: str) -> dict[str, Any]:
    reason = only(calls.explain(run_id))
    assert reason["code"] == "connection_not_ready"
    assert reason["subject"]["name"] == "Issue tracker"
    assert calls.worker.poll().json()["runs"] == []
    return reason


def test_nobody_has_signed_in(calls: Calls, cast: Cast) -> None:
    connection = add_oauth_connection(cast)
    lose_connection(connection, "unauthorized")
    reason = _told(calls, _waiting(calls, connection))
    assert reason["message"] == "Nobody has signed in for connection Issue tracker yet."
    assert reason["remedy"].startswith("Sign in on the connection's page in the console")
    assert reason["subject"]["id"] == str(connection.id)


@pytest.mark.parametrize(
    ("grant", "remedy"),
    [
        ("authorization_code", "Sign in on the connection's page in the console"),
        ("client_credentials", "Correct the client's secret with PATCH /connections/:id"),
    ],
)
def test_it_needs_a_login(calls: Calls, cast: Cast, grant: str, remedy: str) -> None:
    connection = add_oauth_connection(cast, grant_type=grant)
    lose_connection(connection)
    reason = _told(calls, _waiting(calls, connection))
    assert reason["message"] == f"Connection Issue tracker needs a new login. {connection.error}"
    assert reason["remedy"].startswith(remedy)


def test_a_scheduler_is_getting_a_token_or_none_is_alive(calls: Calls, cast: Cast) -> None:
    connection = add_oauth_connection(cast)
    run_id = _waiting(calls, connection)
    assert calls.explain(run_id)["waitingFor"] == []
    ago(connection, 3541)
    reason = _told(calls, run_id)
    assert reason["message"] == "A scheduler is getting a fresh token for connection Issue tracker."
    assert (reason["remedy"], reason["until"]) == (None, None)
    SchedulerHeartbeat.objects.all().delete()
    assert "no scheduler is alive" in _told(calls, run_id)["message"]


def test_its_server_fails(calls: Calls, cast: Cast) -> None:
    connection = add_oauth_connection(cast)
    run_id = _waiting(calls, connection)
    row = Connection.objects.filter(id=connection.id)
    again = database_now() + timedelta(seconds=300)
    row.update(status="failing", error="The server answered 503.", failures=6, refresh_at=again)
    assert calls.explain(run_id)["waitingFor"] == [], "its token is still good"
    row.update(fresh_until=database_now())
    reason = _told(calls, run_id)
    assert (
        "gets no fresh token. The server answered 503; schedulers try again at"
        in (reason["message"])
    )
    assert reason["until"] is not None
    assert reason["remedy"].startswith("Sign in")


def test_headers_that_somebody_gave_are_always_ready_if_they_open(calls: Calls, cast: Cast) -> None:
    connection = Connection.objects.get(id=add_connection(cast))
    run_id = _waiting(calls, connection)
    assert calls.explain(run_id)["waitingFor"] == []
    Connection.objects.update(headers=b"tampered with" * 9)
    assert only(calls.explain(run_id))["code"] == "headers_unreadable"
