"""Who authorizes a connection waits without a thread, whatever the server does and whichever scheduler dies."""

import os
import signal
from dataclasses import replace
from typing import Any
from uuid import UUID

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
from testing.processes.told_server import told_server
from testing.world.cast import Cast
from testing.world.connections import work_off
from testing.world.throttles import count_more
from workspaces.connections import authorizers
from workspaces.connections.authorizers import ToDiscover, ToExchange
from workspaces.connections.pages import _RATE
from workspaces.connections.tests.test_authorizing import Browser, add, pages, text_of
from workspaces.models import Authorization
from workspaces.services import create_environment, create_workspace


@pytest.fixture(autouse=True)
def _own_network(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)


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
        for _ in range(3):
            ticket.begin(is_last=False)
            assert ada.ask(connection_id).status_code == 503
    finally:
        ASKING.reset(token)
    statuses = [ada.ask(connection_id).status_code for _ in range(10)]
    assert statuses == [503] * 9 + [429]


def test_the_callback_has_a_rate(cast: Cast, settings: Any) -> None:
    settings.THROTTLES_ENABLED = True
    page = Browser.of(cast.admin).page(add(cast, "https://mcp.example"))
    assert page("get", state="guessed", code="x").status_code == 409
    count_more(_RATE.rate, "127.0.0.1", 58)
    statuses = [page("get", state="guessed", code="x").status_code for _ in range(2)]
    assert statuses == [409, 429]


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
