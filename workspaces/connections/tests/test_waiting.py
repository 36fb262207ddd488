"""Who authorizes a connection waits without a thread, whatever the server does and whichever scheduler dies."""

import html
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
from django.db.models import F
from django.urls import resolve

from pipedai.events import Actor
from pipedai.outgoing import due
from pipedai.server import long_poll
from pipedai.server.long_poll import asking_connection
from pipedai.server.tests.asgi_exchange import http_scope
from pipedai.server.ticket import ASKING, AskingTicket
from pipedai.sql import Row
from testing.processes.forks import forked
from testing.processes.racing import at_once
from testing.processes.scheduler_process import scheduling
from testing.processes.told_server import told_server
from testing.processes.web_process import Server, serve
from testing.processes.worker_process import until
from testing.world.cast import Cast, session_cookie
from testing.world.connections import work_off
from workspaces.connections import authorizers
from workspaces.connections.authorizers import ToDiscover, ToExchange
from workspaces.connections.tests.test_authorizing import Browser, add, pages, text_of
from workspaces.models import Authorization, Connection
from workspaces.services import create_environment, create_workspace

LOOPBACK = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
A_SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _own_network(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)


@contextmanager
def silent_server() -> Iterator[str]:
    """The origin of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass
class Visitor:
    """Somebody with a session, who calls a served API from one of the loopback addresses."""

    server: Server
    cookie: str
    address: str = "127.0.0.1"

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.HTTPTransport(local_address=self.address)
        with httpx.Client(transport=transport, timeout=60) as client:
            headers = {"Cookie": f"auth_token={self.cookie}", "Sec-Fetch-Site": "same-origin"}
            return client.request(method, f"{self.server.url}{path}", headers=headers, **more)


def claim(queue: ToDiscover | ToExchange) -> Row | None:
    rows = due.claim_due(queue, room=8, busy={}, per_host=8)
    return rows[0] if rows else None


def asked(cast: Cast, who: Any = None) -> UUID:
    """Begins an authorization by somebody, the admin by default, and returns the id of its connection."""
    connection_id: UUID = add(cast, "https://mcp.example")
    assert Browser.of(who or cast.admin).ask(connection_id).status_code == 503
    return connection_id


def test_the_lane_has_each_route_that_may_wait(cast: Cast) -> None:
    paths = [
        f"/api/v1/connections/{cast.trigger_id}/authorize",
        f"/console/connections/{cast.trigger_id}/connect",
        f"/account/connections/{cast.trigger_id}/callback",
    ]
    for path in paths:
        assert resolve(path)
        assert asking_connection(http_scope("POST", path)) == cast.trigger_id
        assert asking_connection(http_scope("GET", path)) is None
    assert long_poll._PATH.pattern.count("|") == len(paths) - 1


def test_twelve_that_wait_for_a_silent_server_leave_both_threads_to_others(
    own_database: str, committed_cast: Cast, tmp_path: Path
) -> None:
    """Nobody who waits is answered before the others are: so no thread waits with them."""
    cast = committed_cast
    with silent_server() as origin:
        connections = [add(cast, origin) for _ in range(12)]
        with (
            serve(own_database, log=tmp_path / "web.log", WEB_THREADS="2", **LOOPBACK) as server,
            scheduling(own_database, log=tmp_path / "scheduler.log", **LOOPBACK),
            ThreadPoolExecutor(12) as pool,
        ):
            cookie = session_cookie(cast.admin)
            waiting: list[Future[httpx.Response]] = [
                pool.submit(
                    Visitor(server, cookie, f"127.0.0.{n % 2 + 1}").call,
                    "POST",
                    f"/api/v1/connections/{connection_id}/authorize",
                )
                for n, connection_id in enumerate(connections)
            ]
            until(lambda: Authorization.objects.count() == 12)
            until(lambda: Authorization.objects.filter(lease_id__isnull=False).exists())
            stranger = Visitor(server, session_cookie(cast.stranger))
            for _ in range(5):
                path = f"/api/v1/environments/{cast.strange_environment.id}/triggers"
                assert stranger.call("GET", path).status_code == 200
                # One of a workspace is under way at a time.
                assert Authorization.objects.filter(lease_id__isnull=False).count() <= 1
            bearer = {"Authorization": f"Bearer {cast.worker.worker_token}"}
            path = f"{server.api}/workers/{cast.worker.worker_id}/claim-next"
            claimed = httpx.post(path, json={"claimId": "one"}, headers=bearer, timeout=60)
            assert (claimed.status_code, claimed.json()["run"]) == (200, None)
            assert not any(each.done() for each in waiting)
            server.kill()


def test_a_scheduler_asks_for_one_of_a_workspace_and_four_of_a_user_at_once(
    committed_cast: Cast,
) -> None:
    cast = committed_cast
    places = []
    for n in range(6):
        workspace = create_workspace(
            name=f"W{n}", user_id=cast.admin.id, actor=Actor("user", cast.admin.id)
        )
        places.append(
            create_environment(
                workspace_id=workspace.id,
                name="e",
                user_id=cast.admin.id,
                actor=Actor("user", cast.admin.id),
            )
        )
    for place in places:
        for _ in range(2):
            asked(replace(cast, environment=place))
    asked(replace(cast, environment=cast.strange_environment), cast.stranger)
    claims = []
    while row := claim(ToDiscover()):
        claims.append(row)
    workspaces = [each["workspace_id"] for each in claims]
    assert len(set(workspaces)) == len(workspaces)
    users = [each.user_id for each in Authorization.objects.filter(lease_id__isnull=False)]
    assert sorted(map(users.count, {cast.admin.id, cast.stranger.id})) == [1, 4]
    # What is over makes room for the next.
    Authorization.objects.filter(id=claims[0]["id"]).delete()
    assert claim(ToDiscover()) is not None
    assert claim(ToDiscover()) is None


def test_two_schedulers_at_once_claim_one_of_a_workspace(committed_cast: Cast) -> None:
    for _ in range(3):
        asked(committed_cast)
    claims = at_once(*(lambda: claim(ToDiscover()) for _ in range(4)))
    assert sum(each is not None for each in claims) == 1


def test_what_a_killed_scheduler_was_finding_out_is_asked_once_more(committed_cast: Cast) -> None:
    ada = Browser.of(committed_cast.admin)
    with told_server(pages()) as origin:
        connection_id = add(committed_cast, origin)
        assert ada.ask(connection_id).status_code == 503
        pid = forked(killed_while_it_asks)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        assert (work_off(), ada.ask(connection_id).status_code) == (0, 503)
        Authorization.objects.update(leased_until=F("due_at"))
        assert work_off() == 1
        assert ada.ask(connection_id).json()["url"].startswith(f"{origin}/authorize")


def test_what_two_schedulers_died_of_is_given_up(committed_cast: Cast) -> None:
    ada = Browser.of(committed_cast.admin)
    connection_id = add(committed_cast, "https://mcp.example")
    assert ada.ask(connection_id).status_code == 503
    for _ in range(2):
        os.waitpid(forked(killed_while_it_asks), 0)
        Authorization.objects.update(leased_until=F("due_at"))
    assert work_off() == 1
    refused = ada.ask(connection_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot_discover")
    assert "Two schedulers ended" in refused.json()["error"]


def killed_while_it_asks() -> None:
    """Takes what is to be found out, and dies as by kill -9 before there is an answer."""
    setattr(authorizers, "discover", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))  # noqa: B010 - as a test patches it
    work_off()


def test_without_a_scheduler_there_is_a_clear_answer_and_nothing_is_left_to_do(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, ticket = Browser.of(cast.admin), AskingTicket()
    connection_id = add(cast, "https://mcp.example")
    token = ASKING.set(ticket)
    try:
        ticket.begin(is_last=False)
        assert (ada.ask(connection_id).status_code, ticket.waits) == (503, True)
        assert ticket.workspace_id == cast.workspace.id
        ticket.begin(is_last=True)
        refused = ada.ask(connection_id)
    finally:
        ASKING.reset(token)
    assert (refused.status_code, refused.json()["code"]) == (503, "still_asking")
    assert "No scheduler" in refused.json()["error"]
    assert not Authorization.objects.exists()


def test_asking_again_counts_as_one_call(cast: Cast, settings: Any) -> None:
    settings.THROTTLES_ENABLED = True
    ada, ticket = Browser.of(cast.admin), AskingTicket()
    connection_id = add(cast, "https://mcp.example")
    token = ASKING.set(ticket)
    try:
        for _ in range(15):
            ticket.begin(is_last=False)
            assert ada.ask(connection_id).status_code == 503
    finally:
        ASKING.reset(token)
    statuses = [ada.ask(connection_id).status_code for _ in range(10)]
    assert statuses == [503] * 9 + [429]


def test_the_callback_has_a_rate(cast: Cast, settings: Any) -> None:
    settings.THROTTLES_ENABLED = True
    page = Browser.of(cast.admin).page(add(cast, "https://mcp.example"))
    statuses = [page("get", state="guessed", code="x").status_code for _ in range(61)]
    assert set(statuses[:60]) == {409}
    assert statuses[60] == 429


@pytest.mark.parametrize("name", ["state", "code"])
def test_a_nul_is_refused_and_not_taken_out(cast: Cast, name: str) -> None:
    ada = Browser.of(cast.admin)
    with told_server(pages()) as origin:
        connection_id = add(cast, origin)
        brought = {"state": ada.begin(connection_id)["state"], "code": "a-code"}
        page = ada.page(connection_id)
        wrong = brought | {name: brought[name] + "\0"}
        assert page("get", **wrong).status_code == 400
        refused = ada.finish(connection_id, **wrong)
        assert (refused.status_code, "Null characters" in text_of(refused)) == (400, True)
        # It was not used up.
        assert ada.finish(connection_id, **brought).status_code == 200


def test_an_exchange_that_waits_holds_no_thread_and_shows_the_end(
    own_database: str, committed_cast: Cast, tmp_path: Path
) -> None:
    """The whole way over HTTP, by the console's click, which waits in the lane as the API's call does."""
    cast = committed_cast
    with (
        told_server(pages()) as origin,
        serve(own_database, log=tmp_path / "web.log", WEB_THREADS="1", **LOOPBACK) as server,
        scheduling(own_database, log=tmp_path / "scheduler.log", **LOOPBACK),
    ):
        ada = Visitor(server, session_cookie(cast.admin))
        connection_id = add(cast, origin)
        going = ada.call("POST", f"/console/connections/{connection_id}/connect")
        assert going.status_code == 200, going.text
        (url,) = re.findall(r'href="([^"]+/authorize[^"]+)"', going.text)
        state = parse_qs(urlsplit(html.unescape(url)).query)["state"][0]
        brought = {"step": "connect", "state": state, "code": "a-code"}
        done = ada.call("POST", f"/account/connections/{connection_id}/callback", data=brought)
        assert (done.status_code, "Connected." in done.text) == (200, True)
    assert Connection.objects.get().status == "connected"
