"""Schedulers ask for the tokens of `client_credentials`, also for the first ones."""

from urllib.parse import parse_qs, unquote

import pytest

from audit.models import AuditEntry
from notices.models import Incident
from testing.processes.told_server import Told, told_server
from testing.world.connections import add_oauth_connection, claim_due
from workspaces.connections import secrets
from workspaces.connections.refreshing import ask, record
from workspaces.models import Connection

RESOURCE = "/.well-known/oauth-protected-resource/mcp"
SERVER = "/.well-known/oauth-authorization-server"
PAGES: dict[str, Told] = {
    RESOURCE: (
        200,
        {},
        {
            "resource": "{origin}/mcp",
            "authorization_servers": ["{origin}"],
            "scopes_supported": ["read", "write"],
        },
    ),
    SERVER: (
        200,
        {},
        {
            "issuer": "{origin}",
            "token_endpoint": "{origin}/token",
            "revocation_endpoint": "{origin}/revoke",
            "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        },
    ),
    # The token repeats what was asked.
    "/token": (200, {}, {"access_token": "{asked}", "token_type": "Bearer", "expires_in": 600}),
}


@pytest.fixture
def made(cast, settings):
    """Returns what makes a connection at an origin, as it is right after its creation."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)

    def make(origin, **columns):
        connection = add_oauth_connection(
            cast, grant_type="client_credentials", mcp_url=f"{origin}/mcp"
        )
        nothing = ("headers", "headers_key", "access_expires_at", "fresh_until", "connected_at")
        found = ("issuer", "token_endpoint", "revocation_endpoint", "resource", "auth_method")
        blank = {
            **dict.fromkeys((*nothing, *found)),
            "status": "unauthorized",
            "refresh_at": connection.created_at,
        }
        Connection.objects.filter(id=connection.id).update(**{**blank, **columns})
        return connection

    return make


def refresh(connection):
    Connection.objects.update(refresh_at=connection.created_at)
    claim = claim_due()
    assert claim is not None
    record(claim, ask(claim))
    connection.refresh_from_db()
    return connection


def actions():
    return set(AuditEntry.objects.filter(target_type="connection").values_list("action", flat=True))


def test_the_first_ones_come_from_the_server_that_is_discovered(made):
    with told_server(PAGES) as origin:
        connection = refresh(made(origin))
        assert (connection.status, connection.issuer) == ("connected", origin)
        assert connection.revocation_endpoint == f"{origin}/revoke"
        assert connection.auth_method == "client_secret_post"
        assert connection.connected_at is not None
        assert actions() == {"connection.authorized"}
        _, _, form = unquote(secrets.access_token_of(connection) or "").split(" ")
        assert {name: value for name, (value,) in parse_qs(form).items()} == {
            "grant_type": "client_credentials",
            "resource": f"{origin}/mcp",
            "scope": "read write",
            "client_id": "planted-client-id",
            "client_secret": "planted-client-secret",
        }
        Connection.objects.update(scopes=["read"])
        refresh(connection)
        assert "scope=read&" in unquote(secrets.access_token_of(connection) or "")
        assert connection.last_refresh_at is not None


def test_its_secret_goes_to_no_other_issuer_than_the_first(made):
    with told_server(PAGES) as origin:
        connection = refresh(made(origin, issuer="https://issuer.example"))
    assert connection.error.startswith("The MCP server names another authorization server than")
    assert connection.next_issuer == origin
    assert (connection.status, connection.failures) == ("unauthorized", 1)


def test_what_can_not_be_discovered_shows_and_is_tried_again(made):
    with told_server({}) as origin:
        connection = refresh(made(origin))
        assert connection.status == "unauthorized"
        assert connection.error.startswith("The MCP server tells no authorization server")
        for _ in range(2):
            refresh(connection)
    assert connection.status == "failing"


def test_a_refused_secret_needs_another_one(made):
    refusal: Told = (401, {}, {"error": "invalid_client"})
    with told_server({**PAGES, "/token": refusal}) as origin:
        connection = made(origin)
        for _ in range(3):
            refresh(connection)
    assert connection.status == "needs_login"
    assert Incident.objects.get().message == (
        "The authorization server gave no token: the server refused it (invalid_client)."
        " Its runs wait until it gets another client secret on its page."
    )


def test_a_claim_that_left_no_record_is_repeated_as_often_as_it_takes(made):
    with told_server(PAGES) as origin:
        connection = made(origin)
        for _ in range(3):
            assert claim_due() is not None
            Connection.objects.update(leased_until=connection.created_at)
        assert refresh(connection).status == "connected"
