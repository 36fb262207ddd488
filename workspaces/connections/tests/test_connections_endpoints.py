"""Connections are made, shown, changed and deleted, and what is fixed or bad is refused."""

from dataclasses import replace

import pytest

from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.probes.shapes import A_TIME, AN_ID, invalid
from testing.world.connections import (
    CONNECTION_HEADERS,
    CONNECTION_URL,
    REFRESH_TOKEN,
    add_connection,
    add_oauth_connection,
    lose_connection,
)
from workspaces.connections import secrets
from workspaces.models import Connection

BODY = {
    "name": "Issue tracker",
    "mcpUrl": CONNECTION_URL,
    "grant": "headers",
    "headers": CONNECTION_HEADERS,
}


@pytest.fixture
def create(cast):
    url = f"/api/v1/environments/{cast.environment.id}/connections"

    def creating(**values):
        body = {name: value for name, value in {**BODY, **values}.items() if value is not ...}
        return cast.client(cast.admin).post(url, body)

    return creating


def test_a_new_one_shows_all_but_its_headers(cast, create):
    made = create()
    assert made.status_code == 201
    assert made.json() == {
        "id": AN_ID,
        "key": None,
        "managedBy": None,
        "environmentId": str(cast.environment.id),
        "name": "Issue tracker",
        "mcpUrl": CONNECTION_URL,
        "grant": "headers",
        "scopes": [],
        "clientId": None,
        "issuer": None,
        "nextIssuer": None,
        "redirectUri": None,
        "status": "connected",
        "connectedBy": None,
        "connectedAt": None,
        "accessExpiresAt": None,
        "lastRefreshAt": None,
        "error": None,
        "createdAt": A_TIME,
        "updatedAt": A_TIME,
    }
    shown = cast.client(cast.viewer).get(f"/api/v1/connections/{made.json()['id']}")
    assert shown.json() == made.json()


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("mcpUrl", "ftp://mcp.example/", "Must be an http or https URL with a host."),
        ("mcpUrl", "https://mcp.example/\u00e9", "Must be ASCII."),
        ("grant", "magic", '"magic" is not a valid choice.'),
        ("headers", {}, "Must hold at least one header."),
        ("headers", {"Host": "mcp.example"}, "Host may not be set."),
    ],
)
def test_what_is_bad_is_refused(create, field, value, problem):
    refused = create(**{field: value})
    assert refused.status_code == 400
    assert refused.json() == invalid({field: [problem]})


OAUTH = {"headers": ..., "grant": "authorization_code"}
CLIENT = {"clientId": "a client's id", "clientSecret": "planted secret of a client"}


@pytest.mark.parametrize(
    "given",
    [
        {"grant": "authorization_code"},
        {"grant": "authorization_code", "scopes": ["b", "a", "b"], **CLIENT},
        {"grant": "client_credentials", **CLIENT},
    ],
    ids=["code", "code of a known client", "credentials"],
)
def test_a_new_one_behind_oauth_waits_for_its_token(create, given):
    made = create(headers=..., **given)
    assert made.status_code == 201
    shown = made.json()
    page = f"http://localhost:8000/account/connections/{shown['id']}/callback"
    has_page = given["grant"] == "authorization_code"
    assert shown["redirectUri"] == (page if has_page else None)
    assert (shown["status"], shown["clientId"]) == ("unauthorized", given.get("clientId"))
    assert shown["scopes"] == (["b", "a"] if "scopes" in given else [])
    # A scheduler asks for the token of a client; a person has to authorize the others.
    assert (Connection.objects.get().refresh_at is None) == has_page


NEEDED, NONE = "This field is required.", "A connection with the grant {} has none."
PRIVATE = "Must not name a private or reserved address that is not in WEBHOOK_ALLOWED_NETWORKS."


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"headers": ...}, {"headers": NEEDED}),
        ({**CLIENT}, {name: NONE.format("headers") for name in CLIENT}),
        ({"scopes": ["a"]}, {"scopes": NONE.format("headers")}),
        ({"grant": "authorization_code"}, {"headers": NONE.format("authorization_code")}),
        ({**OAUTH, "clientSecret": "planted secret"}, {"clientId": NEEDED}),
        (
            {"headers": ..., "grant": "client_credentials"},
            {"clientId": NEEDED, "clientSecret": NEEDED},
        ),
        ({**OAUTH, "mcpUrl": "http://10.0.0.1/"}, {"mcpUrl": PRIVATE}),
    ],
)
def test_what_does_not_fit_the_grant_is_refused(create, given, problems):
    refused = create(**given)
    assert refused.json() == invalid({name: [problem] for name, problem in problems.items()})


class TestOneBehindOAuth:
    @pytest.fixture
    def change(self, cast):
        client = cast.client(cast.admin)
        return lambda connection, **body: client.patch(f"/api/v1/connections/{connection.id}", body)

    def test_keeps_its_client_and_may_get_another_secret(self, cast, change):
        connection = add_oauth_connection(cast, client_given=True)
        problem = invalid({"clientId": ["It can't be changed."]})
        assert change(connection, clientId="another").json() == problem
        changed = change(connection, clientId=connection.client_id, clientSecret="planted newer")
        assert (changed.status_code, changed.json()["status"]) == (200, "connected")
        connection.refresh_from_db()
        held = secrets.grant_of(connection)
        assert (held.client_secret, held.refresh_token) == ("planted newer", REFRESH_TOKEN)

    def test_has_no_secret_of_a_client_that_a_server_made(self, cast, change):
        refused = change(add_oauth_connection(cast), clientSecret="planted newer")
        problem = "It belongs to a clientId, and nobody has given one."
        assert refused.json() == invalid({"clientSecret": [problem]})

    @pytest.mark.parametrize("status", ["connected", "needs_login"])
    def test_asks_for_a_token_at_once_with_a_new_secret(self, cast, change, status):
        connection = add_oauth_connection(cast, grant_type="client_credentials")
        if status == "needs_login":
            lose_connection(connection)
        changed = change(connection, clientSecret="planted newer")
        assert changed.json()["error"] is None
        is_lost = status == "needs_login"
        assert changed.json()["status"] == ("unauthorized" if is_lost else "connected")
        connection.refresh_from_db()
        assert connection.refresh_at is not None
        assert connection.refresh_at <= database_now()

    def test_is_found_by_its_status_and_grant(self, cast):
        lost = add_oauth_connection(cast)
        lose_connection(lost)
        add_connection(cast)
        url = f"/api/v1/environments/{cast.environment.id}/connections"
        client = cast.client(cast.viewer)
        for chosen in ({"status": "needs_login"}, {"grant": "authorization_code"}):
            listed = client.get(url, chosen).json()["items"]
            assert [(each["id"], each["error"]) for each in listed] == [(str(lost.id), lost.error)]
        assert len(client.get(url).json()["items"]) == 2


def test_its_url_and_grant_stay_and_its_name_may_change(cast):
    client = cast.client(cast.admin)
    url = f"/api/v1/connections/{add_connection(cast)}"
    refused = client.patch(url, {"mcpUrl": "https://other.example/", "grant": "headers"})
    assert refused.json() == invalid({"mcpUrl": ["It can't be changed."]})
    changed = client.patch(url, {"mcpUrl": CONNECTION_URL, "name": "Tracker"})
    assert (changed.status_code, changed.json()["name"]) == (200, "Tracker")


def test_one_that_a_trigger_uses_stays(cast):
    connection_id = add_connection(cast)
    trigger_id = cast.add_trigger(connection_id=connection_id, mcp_url=CONNECTION_URL)
    client, url = cast.client(cast.admin), f"/api/v1/connections/{connection_id}"
    refused = client.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (409, "has_children")
    assert refused.json()["error"] == "The connection still has 1 trigger."
    assert client.delete(f"/api/v1/triggers/{trigger_id}").status_code == 204
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    assert not Connection.objects.exists()


def test_an_environment_with_one_stays(cast):
    add_connection(cast)
    refused = cast.client(cast.owner).delete(f"/api/v1/environments/{cast.environment.id}")
    assert "1 connection" in refused.json()["error"]


class TestTheTriggersOf:
    @pytest.fixture
    def connection_id(self, cast):
        return add_connection(cast)

    @pytest.fixture
    def patch(self, cast):
        url = f"/api/v1/triggers/{cast.trigger_id}"
        return lambda **body: cast.client(cast.admin).patch(url, body)

    def test_a_connection_have_its_url(self, cast, connection_id):
        client = cast.client(cast.admin)
        url = f"/api/v1/environments/{cast.environment.id}/triggers"
        body = {"name": "New", "prompt": "Work.", "connectionId": str(connection_id)}
        made = client.post(url, body)
        assert made.status_code == 201
        assert made.json()["connectionId"] == str(connection_id)
        assert made.json()["mcpUrl"] == CONNECTION_URL
        assert made.json()["hasMcpHeaders"]
        listed = client.get(url, {"connectionId": connection_id}).json()["items"]
        assert [each["id"] for each in listed] == [made.json()["id"]]

    def test_another_environment_are_refused(self, cast, patch):
        foreign = replace(cast, environment=cast.strange_environment)
        for unknown in (new_id(), add_connection(foreign)):
            refused = patch(connectionId=unknown)
            problem = "No such connection in this environment."
            assert refused.json() == invalid({"connectionId": [problem]})

    def test_another_url_are_refused(self, patch, connection_id):
        problem = "The trigger's connection is for another URL. Leave it out."
        wrong = {"mcpUrl": "https://other.example/"}
        assert patch(connectionId=connection_id, **wrong).json() == invalid({"mcpUrl": [problem]})
        assert patch(connectionId=connection_id, mcpUrl=CONNECTION_URL).status_code == 200
        assert patch(**wrong).json() == invalid({"mcpUrl": [problem]})
        assert patch(connectionId=None, **wrong).json()["mcpUrl"] == wrong["mcpUrl"]

    def test_a_connection_have_no_authorization_of_their_own(self, patch, connection_id):
        own = {"mcpHeaders": {"authorization": "Bearer a-planted-own-one"}}
        problem = invalid({"mcpHeaders": ["The trigger's connection has the Authorization."]})
        assert patch(connectionId=connection_id, **own).json() == problem
        assert patch(connectionId=connection_id).status_code == 200
        assert patch(**own).json() == problem
        # Who leaves a connection, or takes one, leaves the headers that were for the server before.
        assert patch(mcpHeaders={"x-team": "planted-blue-team"}).status_code == 200
        assert patch(connectionId=None).json()["hasMcpHeaders"] is False
