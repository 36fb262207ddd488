"""A client secret goes to the issuer it was given for, and the grant before ends when another issuer gives one."""

import json
from typing import Any

import pytest

from testing.processes.told_server import told_server
from testing.world.cast import Cast
from testing.world.connections import add_oauth_connection, claim_due
from workspaces.connections import secrets
from workspaces.connections.models import REVOCATION_REQUEST
from workspaces.connections.refreshing import ask, record
from workspaces.connections.tests.test_authorizing import (
    RESOURCE,
    Browser,
    add,
    asked_of,
    pages,
)
from workspaces.encryption import keys
from workspaces.encryption.keys import WrappedKey
from workspaces.models import Connection, Revocation

OLDER = "https://older.example"
NEW_SECRET = "planted-newer-secret"


@pytest.fixture(autouse=True)
def _own_network(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)


@pytest.fixture
def ada(cast: Cast) -> Browser:
    browser: Browser = Browser.of(cast.admin)
    return browser


def requests_queued() -> str:
    """Returns all that the queued revocations will send."""
    opened = ""
    for row in Revocation.objects.select_related("request_key"):
        key = WrappedKey(
            row.request_key.id, bytes(row.request_key.wrapped), row.request_key.master_key_id
        )
        box = bytes(row.request or b"")
        opened += keys.unseal(REVOCATION_REQUEST, row.environment_id, row.id, box, key).decode()
    return opened


def test_another_issuer_gets_the_secret_only_once_it_is_entered_anew(
    cast: Cast, ada: Browser
) -> None:
    with told_server(pages()) as origin:
        connection = add_oauth_connection(
            cast, mcp_url=f"{origin}/mcp", client_given=True, issuer=OLDER, client_id="ours"
        )
        for _ in range(2):
            refused = ada.begin(connection.id)
            assert (refused.status_code, refused.json()["code"]) == (409, "issuer_changed")
        admin = cast.client(cast.admin)
        path = f"/api/v1/connections/{connection.id}"
        shown = admin.get(path).json()
        assert (shown["issuer"], shown["nextIssuer"]) == (OLDER, origin)
        assert asked_of(origin, "/token") == []
        changed = admin.patch(path, {"clientSecret": NEW_SECRET}, format="json")
        assert (changed.status_code, changed.json()["nextIssuer"]) == (200, None)
        # The grant before is ended with the secret before, which its server knows.
        assert changed.json()["status"] == "unauthorized"
        assert f"{OLDER.replace('older', 'issuer')}/revoke" in requests_queued()
        assert NEW_SECRET not in requests_queued()
        state = ada.begin(connection.id)["state"]
        assert ada.finish(connection.id, state=state, code="a-code").status_code == 200
    connection.refresh_from_db()
    assert (connection.issuer, connection.secret_issuer) == (origin, origin)


def test_the_secret_belongs_to_where_it_was_first_sent(cast: Cast, ada: Browser) -> None:
    with told_server(pages(token=(500, {}, ""))) as origin:
        connection_id = add(cast, origin, client_id="ours", client_secret=NEW_SECRET)
        state = ada.begin(connection_id)["state"]
        assert Connection.objects.get().secret_issuer is None
        # The server has seen the secret, although it gave no token.
        assert ada.finish(connection_id, state=state, code="a-code").status_code == 409
        assert Connection.objects.get().secret_issuer == origin


def test_a_secret_that_is_entered_for_the_issuer_before_stays_with_it(
    cast: Cast, ada: Browser
) -> None:
    with told_server(pages()) as origin:
        connection = add_oauth_connection(
            cast, mcp_url=f"{origin}/mcp", client_given=True, issuer=OLDER, client_id="ours"
        )
        path = f"/api/v1/connections/{connection.id}"
        changed = cast.client(cast.admin).patch(path, {"clientSecret": NEW_SECRET}, format="json")
        assert changed.json()["status"] == "connected"
        assert ada.begin(connection.id).json()["code"] == "issuer_changed"


def test_a_machines_secret_stays_with_the_issuer_that_gave_it_no_token(cast: Cast) -> None:
    with told_server(pages(token=(500, {}, ""))) as first, told_server(pages()) as second:
        elsewhere = {**RESOURCE, "authorization_servers": [second]}
        with told_server(
            {"/.well-known/oauth-protected-resource/mcp": (200, {}, elsewhere)}
        ) as mcp:
            connection = add_oauth_connection(
                cast,
                grant_type="client_credentials",
                mcp_url=f"{mcp}/mcp",
                issuer=None,
                secret_issuer=first,
            )
            Connection.objects.update(refresh_at=connection.created_at)
            claim = claim_due()
            assert claim is not None
            answer = ask(claim)
            assert record(claim, answer) == "failed"
        assert asked_of(second, "/token") == []
    connection.refresh_from_db()
    assert connection.next_issuer == second
    assert "Enter the client secret again" in str(connection.error)


def test_the_grant_at_another_issuer_is_revoked_though_the_client_has_the_same_name(
    cast: Cast, ada: Browser
) -> None:
    with told_server(pages()) as origin:
        connection = add_oauth_connection(
            cast,
            mcp_url=f"{origin}/mcp",
            client_given=True,
            client_secret=None,
            issuer=OLDER,
            client_id="public",
        )
        state = ada.begin(connection.id)["state"]
        assert ada.finish(connection.id, state=state, code="a-code").status_code == 200
    (first,) = json.loads(requests_queued())[:1]
    assert first["url"] == "https://issuer.example/revoke"
    connection.refresh_from_db()
    assert secrets.access_token_of(connection) == "planted-access"
