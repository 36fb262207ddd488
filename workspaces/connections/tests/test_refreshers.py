"""Schedulers refresh each connection once, however many there are, and also when they are killed."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import httpx
import pytest
from django.db import connection as database
from django.db.models import F

from notices.models import Incident
from pipedai.api.outside_urls import server_of
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.outgoing.due import Memory, Taker, taker_of
from pipedai.outgoing.due import claim_due as claim_of
from pipedai.outgoing.oauth import Client, Tokens
from pipedai.outgoing.pool import Senders
from pipedai.outgoing.posts import Answer
from pipedai.sql import database_now, execute
from testing.probes.plan_nodes import nodes
from testing.probes.plans import explained
from testing.processes.forks import forked
from testing.processes.grant_server import KNOWN_ID, KNOWN_SECRET, GrantServer
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.processes.scheduler_process import scheduling
from testing.processes.webhook_receiver import receiving
from testing.processes.worker_calls import WorkerCalls
from testing.processes.worker_process import until
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.connections import (
    add_oauth_connection,
    ago,
    answer_of,
    claim_due,
)
from testing.world.runs import Runs
from workspaces.connections import authorizing, refreshing
from workspaces.connections.authorizing import Returned
from workspaces.connections.models import REVOCATION_REQUEST
from workspaces.connections.refreshing import Ailing, Given, Healthy, Refreshers, want_refresh
from workspaces.connections.revoking import REVOCATIONS
from workspaces.connections.services import CONNECTIONS
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey
from workspaces.models import Connection, Revocation
from workspaces.services import create_environment, create_workspace

LOOPBACK = "127.0.0.0/8"


@pytest.fixture
def server(settings, authority: GrantServer) -> GrantServer:
    settings.WEBHOOK_ALLOWED_NETWORKS = (LOOPBACK,)
    return authority


def authorize(cast: Cast, server: GrantServer, connection_id: UUID) -> None:
    """Authorizes a connection as the cast's admin does in the browser."""
    who: dict[str, Any] = {"session_id": new_id(), "actor": Actor("user", cast.admin.id)}
    begin = partial(authorizing.begin, connection_id=connection_id, **who)
    way = answer_of(begin)
    back = dict(parse_qsl(urlsplit(server.agree(way.url)).query))
    returned = Returned(back["state"], back["code"], "", back["iss"])
    answer_of(partial(authorizing.finish, connection_id=connection_id, returned=returned, **who))


def authorized(cast: Cast, server: GrantServer) -> Connection:
    """Returns a connection with tokens of the server. It is due."""
    connection_id = CONNECTIONS.create(
        environment_id=cast.environment.id,
        values={"name": "Tracker", "mcp_url": server.url, "grant_type": "authorization_code"},
        actor=TEST_ACTOR,
    )
    authorize(cast, server, connection_id)
    connection = Connection.objects.get(id=connection_id)
    ago(connection, 2400)
    return connection


def status_of(connection: Connection) -> str:
    connection.refresh_from_db()
    return connection.status


def test_schedulers_and_a_hand_out_that_want_the_same_make_one_request(
    committed_cast: Cast, server: GrantServer
) -> None:
    connection = authorized(committed_cast, server)
    schedulers = [Refreshers(Healthy()) for _ in range(3)]
    wants = partial(want_refresh, [connection.id])
    tops: list[Callable[[], int | None]] = [each.top_up for each in schedulers]
    begun = accepted(at_once(*tops, wants, *tops))
    assert sum(each or 0 for each in begun) == 1
    assert all(each.wait(60) for each in schedulers)
    assert len(server.asked("refresh_token")) == 1
    assert status_of(connection) == "connected"
    assert connection.last_refresh_at is not None
    for each in schedulers:
        each.finish()


def test_a_server_that_forgets_its_tokens_early_fails_one_run_and_not_the_next(
    committed_cast: Cast, server: GrantServer
) -> None:
    cast, calls = committed_cast, WorkerCalls(committed_cast.worker)

    def answers(run: Any) -> int:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        sent = {"Accept": "application/json, text/event-stream", **run["mcpHeaders"]}
        return httpx.post(run["mcpUrl"], json=ping, headers=sent).status_code

    connection = authorized(cast, server)
    # Nobody would refresh it before five minutes are over.
    Connection.objects.update(refresh_at=F("refresh_at") + timedelta(minutes=5))
    trigger_id = cast.add_trigger(connection_id=connection.id, mcp_url=connection.mcp_url)
    runs = Runs(cast, trigger_id, now=database_now())
    runs.queue()
    run = calls.claim_next(claimId="first", start=True).json()["run"]
    assert answers(run) != 401
    server.control(revoke="access")
    assert answers(run) == 401
    refused = calls.credentials(run["id"], refusedExpiresAt=run["headersExpireAt"])
    assert refused.json()["code"] == "connection_not_ready"
    calls.complete(run["id"], status="failed", faultClass="infra")
    runs.queue()
    assert calls.claim_next(claimId="next").json()["run"] is None
    scheduler = Refreshers(Healthy())
    assert scheduler.top_up() == 1
    assert scheduler.wait(60)
    scheduler.finish()
    assert answers(calls.claim_next(claimId="next").json()["run"]) != 401


def claimed_and_killed() -> None:
    """Refreshes what is due, and dies after the server's answer and before the record, as by kill -9."""
    setattr(refreshing, "record", lambda *_: os.kill(os.getpid(), signal.SIGKILL))  # noqa: B010 - as a test patches it
    Refreshers(Healthy()).top_up()
    signal.pause()


@pytest.mark.parametrize("rotates", [True, False])
def test_a_kill_after_the_answer_costs_the_grant_only_if_the_server_has_rotated_it(
    committed_cast: Cast, server: GrantServer, rotates: bool
) -> None:
    server.control(rotates=rotates)
    connection = authorized(committed_cast, server)
    pid = forked(claimed_and_killed)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    first, *others = server.asked("refresh_token")
    assert (first["status"], others) == (200, [])
    assert claim_due() is None
    Connection.objects.update(leased_until=connection.created_at)
    schedulers = [Refreshers(Healthy()) for _ in range(2)]
    tops = [each.top_up for each in schedulers]
    assert sum(accepted(at_once(*tops))) == 1
    for each in schedulers:
        each.wait(60)
        each.finish()
    assert [each["status"] for each in server.asked("refresh_token")] == [
        200,
        400 if rotates else 200,
    ]
    assert status_of(connection) == ("needs_login" if rotates else "connected")
    is_open = Incident.objects.filter(kind="connection_needs_login", closed_at__isnull=True)
    assert is_open.count() == rotates
    if rotates:
        authorize(committed_cast, server, connection.id)
        assert (status_of(connection), is_open.count()) == ("connected", 0)


@pytest.mark.long
def test_a_killed_scheduler_and_a_new_one_make_a_client_credentials_grant_whole(
    own_database: str, committed_cast: Cast, server: GrantServer, tmp_path: Path
) -> None:
    """A scheduler with real processes: the first is killed while the server keeps it waiting."""
    connection = add_oauth_connection(
        committed_cast,
        grant_type="client_credentials",
        mcp_url=server.url,
        client_id=KNOWN_ID,
        client_secret=KNOWN_SECRET,
        issuer=None,
        token_endpoint=None,
        revocation_endpoint=None,
        resource=None,
    )
    ago(connection, 2400)
    networks = {"WEBHOOK_ALLOWED_NETWORKS": LOOPBACK}
    server.control(holds=True)
    with scheduling(own_database, log=tmp_path / "first.log", **networks):
        until(lambda: server.asked("client_credentials"))
    server.control(holds=False)
    Connection.objects.update(leased_until=connection.created_at)
    with scheduling(own_database, log=tmp_path / "second.log", **networks):
        until(lambda: status_of(connection) and connection.last_refresh_at)
    assert connection.issuer == server.origin
    assert len(server.asked("client_credentials")) == 2


def test_tokens_are_recorded_when_the_database_is_back(
    caplog: pytest.LogCaptureFixture, committed_cast: Cast, server: GrantServer
) -> None:
    connection = authorized(committed_cast, server)
    server.control(holds=True)
    scheduler = Refreshers(Healthy())
    scheduler.top_up()
    until(lambda: server.asked("refresh_token"))
    with database.cursor() as cursor:
        cursor.execute("ALTER TABLE connection RENAME TO away")
        server.control(holds=False)
        until(lambda: "connection.not_recorded_yet" in caplog.text)
        cursor.execute("ALTER TABLE away RENAME TO connection")
    assert scheduler.wait(60)
    scheduler.finish()
    assert status_of(connection) == "connected"
    assert connection.last_refresh_at is not None


@pytest.mark.parametrize("_round", ROUNDS)
def test_no_token_survives_a_connection_that_is_deleted_while_it_is_refreshed(
    committed_cast: Cast, _round: int
) -> None:
    connection = add_oauth_connection(committed_cast)
    ago(connection, 2400)
    claim = claim_due()
    assert claim is not None
    tokens = Tokens("planted-new-access", "planted-new-refresh", 60)
    given = Given(tokens, {}, Client(claim["client_id"], None, claim["auth_method"]))
    accepted(
        at_once(
            partial(refreshing.record, claim, given),
            partial(CONNECTIONS.delete, connection.id, actor=TEST_ACTOR),
        )
    )
    assert not Connection.objects.exists()
    opened = b""
    for row in Revocation.objects.select_related("request_key"):
        key = WrappedKey(
            row.request_key.id, bytes(row.request_key.wrapped), row.request_key.master_key_id
        )
        box = bytes(row.request or b"")
        opened += keys.unseal(REVOCATION_REQUEST, row.environment_id, row.id, box, key)
    assert b"planted-new-refresh" in opened


def test_a_server_that_hangs_for_one_workspace_holds_up_no_other(
    settings, committed_cast: Cast
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = (LOOPBACK,)
    cast = committed_cast
    others = replace(cast, environment=cast.strange_environment, admin=cast.stranger)
    with receiving() as hangs, receiving() as answers:
        hangs.gate.clear()
        for _ in range(4):
            slow = add_oauth_connection(cast, token_endpoint=hangs.url("/token"))
            ago(slow, 2400)
        queue = Healthy()
        queue.shares = 4
        scheduler = Refreshers(queue)
        # A server that has not answered yet gets one of the threads.
        assert scheduler.top_up() == 1
        quick = add_oauth_connection(
            others, token_endpoint=answers.url("/token"), issuer="https://quick.example"
        )
        ago(quick, 2400)
        assert scheduler.top_up() == 1
        until(lambda: answers.received)
        hangs.gate.set()
        assert scheduler.wait(60)
        scheduler.finish()


# Makes thousands of connections like this one, one in a hundred of which is due.
_MANY = """
INSERT INTO connection SELECT (json_populate_record(c, json_build_object('id', gen_random_uuid(), 'refresh_at',
    c.refresh_at + (CASE WHEN n %% 100 = 0 THEN -1 ELSE 1 END) * interval '1 day'))).*
FROM connection c, generate_series(1, 5000) n
"""


def test_a_claim_among_many_connections_reads_the_partial_index(committed_cast: Cast) -> None:
    add_oauth_connection(committed_cast)
    execute(_MANY, {})
    execute("ANALYZE connection", {})
    with explained() as found:
        assert claim_due() is not None
    (plan,) = found.plans
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "connection"]
    its = {"connection_due", "connection_healthy_by_server"}
    assert {node.get("Index Name") for node in scans} == its
    assert found.rows_read("connection") < 10
    assert "connection" not in found.read_whole


def test_a_deleted_connection_is_revoked_at_a_real_server(
    committed_cast: Cast, server: GrantServer
) -> None:
    connection = authorized(committed_cast, server)
    CONNECTIONS.delete(connection.id, actor=TEST_ACTOR)
    senders = Senders(REVOCATIONS)
    until(lambda: not (senders.top_up() or Revocation.objects.filter(status="pending").exists()))
    senders.finish()
    assert [each["status"] for each in server.requests("/revoke")] == [200, 200]


def in_workspaces_of(cast: Cast, count: int) -> list[Cast]:
    """Returns the cast in an environment of each of so many new workspaces of its admin."""
    user_id, actor = cast.admin.id, Actor("user", cast.admin.id)
    casts = []
    for n in range(count):
        workspace = create_workspace(name=f"W{n}", user_id=user_id, actor=actor)
        made = create_environment(workspace_id=workspace.id, name="e", user_id=user_id, actor=actor)
        casts.append(replace(cast, environment=made))
    return casts


def test_a_new_tenant_comes_next_whatever_waits_of_who_was_served(committed_cast: Cast) -> None:
    cast = committed_cast
    for n, place in enumerate(in_workspaces_of(cast, 12)):
        for m in range(3):
            dead = add_oauth_connection(
                place, token_endpoint=f"https://{n}-{m}.example/token", failures=1
            )
            ago(dead, 2400)
    memory, lane = Memory(), Ailing()
    busy: Counter[Taker] = Counter()
    claimed = claim_of(lane, room=8, busy=busy, per_host=4, memory=memory)
    # Unproven servers leave a quarter to those that answer, and each workspace has had one turn.
    assert len({row["workspace_id"] for row in claimed}) == len(claimed) == 6
    busy.update(taker_of(row) for row in claimed)
    stranger = replace(cast, environment=cast.strange_environment, admin=cast.stranger)
    new = add_oauth_connection(stranger, token_endpoint="https://new.example/token", failures=1)
    ago(new, 2400)
    # All that waits has been due for longer. Of that, only workspaces that had no turn yet may come before it.
    for _ in range(7):
        busy.subtract([taker_of(claimed.pop(0))])
        room = 8 - busy.total()
        (row,) = claim_of(lane, room=room, busy=+busy, per_host=4, memory=memory)
        busy.update([taker_of(row)])
        claimed.append(row)
        if row["id"] == new.id:
            break
    assert row["id"] == new.id


def test_failing_and_new_connections_wait_for_none_of_the_healthy_ones_threads(
    settings, committed_cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = (LOOPBACK,)
    healthy = add_oauth_connection(committed_cast)
    failed = add_oauth_connection(committed_cast, failures=1)
    new = add_oauth_connection(committed_cast, grant_type="client_credentials")
    for each in (healthy, failed, new):
        ago(each, 2400)
    gone = ("headers", "headers_key", "access_expires_at", "fresh_until")
    Connection.objects.filter(id=new.id).update(status="unauthorized", **dict.fromkeys(gone))
    limits = {}
    for lane in (Healthy(), Ailing()):
        for row in claim_of(lane, room=9, busy={}, per_host=9):
            asked: list[float] = []

            def post(*_: Any, timeout: float, asked: list[float] = asked, **__: Any) -> Answer:
                asked.append(timeout)
                return Answer(None, 0, "timed out")

            monkeypatch.setattr("pipedai.outgoing.oauth.post", post)
            refreshing.ask(row)
            limits[row["id"]] = (type(lane), round(max(asked)))
    assert limits == {
        healthy.id: (Healthy, 10),
        failed.id: (Ailing, 3),
        new.id: (Ailing, 3),
    }


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://a.example/token", "a.example"),
        ("https://A.example:443/other?x=1", "a.example"),
        ("https://a.example:8443/token", "a.example:8443"),
        ("http://a.example", "a.example"),
    ],
)
def test_a_server_is_its_host_and_port(cast: Cast, url: str, server: str) -> None:
    ago(add_oauth_connection(cast, token_endpoint=url), 2400)
    claim = claim_due()
    assert claim is not None
    assert claim["host"] == server == server_of(url)
