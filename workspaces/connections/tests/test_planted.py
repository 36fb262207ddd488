"""No secret of a connection is in a page, an error, a repr, an event or an audit row. The watch over all
tests (testing/probes/leaks.py) looks at the answers of the API, the log lines and the tables.
"""

import pytest

from audit.models import AuditEntry
from console.tests.visits import visitor
from pipedai.crypto import CannotOpen
from pipedai.events import Event, happened
from pipedai.outgoing.oauth import Client, NoTokens
from testing.probes.planted import plant
from testing.processes.told_server import told_server
from testing.world.connections import (
    CLIENT_SECRET,
    add_oauth_connection,
    claim_due,
)
from workspaces.connections import secrets
from workspaces.connections.authorizing import Returned
from workspaces.connections.refreshing import ask, record
from workspaces.connections.servers import Registered
from workspaces.connections.tests.test_authorizing import Browser, add, pages
from workspaces.models import Authorization, Connection

# What a careless or hostile server answers: it repeats all that it was sent.
ECHO = {"error": "invalid_grant", "error_description": "{asked}", "error_uri": "{asked}"}


@pytest.fixture(autouse=True)
def _own_network(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)


@pytest.fixture
def told():
    """Collects the domain events, as every receiver hears them."""
    heard: list[Event] = []

    def hear(events, **_):
        heard.extend(events)

    happened.connect(hear)
    yield heard
    happened.disconnect(hear)


def test_no_page_of_the_console_shows_one(cast, watch):
    connection = add_oauth_connection(cast, client_given=True)
    visit = visitor(cast.owner)
    of_environment = f"/console/environments/{cast.environment.id}"
    for path in (
        f"{of_environment}/connections",
        f"{of_environment}/triggers/new",
        f"{of_environment}/settings/audit",
        f"/console/connections/{connection.id}",
        f"/console/connections/{connection.id}/edit",
        f"/console/connections/{connection.id}/delete",
    ):
        page = visit.get(path)
        assert page.status_code == 200
        watch.look_at(path, page.content.decode())
    # What somebody typed is not shown again either.
    form = {"name": "", "clientSecret": "planted-newer-secret", "scopes": ""}
    plant(form["clientSecret"])
    refused = visit.post(f"/console/connections/{connection.id}/edit", form)
    assert refused.status_code == 400
    watch.look_at("the form again", refused.content.decode())


def test_a_server_that_repeats_all_that_it_was_sent_teaches_nobody(cast, watch, told):
    ada = Browser.of(cast.admin)
    with told_server(pages(token=(400, {}, ECHO))) as origin:
        connection_id = add(cast, origin, client_id="ours", client_secret="planted-own-secret")
        state = ada.begin(connection_id)["state"]
        brought = {"state": state, "code": "planted-code", "iss": origin}
        for value in (state, "planted-code", secrets.authorization_of(_begun()).verifier):
            plant(str(value))
        refused = ada.finish(connection_id, **brought)
        watch.look_at("the callback", refused.content.decode())
        again = ada.finish(connection_id, **brought)
        watch.look_at("the callback again", again.content.decode())
        due = add_oauth_connection(
            cast, token_endpoint=f"{origin}/token", refresh_at="2026-01-01T00:00:00Z"
        )
        claim = claim_due()
        assert claim is not None
        assert record(claim, ask(claim)) == "refused"
    due.refresh_from_db()
    assert (due.status, due.error) == (
        "needs_login",
        "The authorization server gave no token: the server refused it (invalid_grant).",
    )
    assert "connection.login-needed" in {each.action for each in told}
    for event in told:
        watch.look_at(event.action, repr(event))
    for entry in AuditEntry.objects.all():
        watch.look_at(entry.action, str(entry.metadata))


def test_no_repr_and_no_error_tells_one(cast, watch):
    connection = add_oauth_connection(cast)
    client = Client("ours", CLIENT_SECRET, "client_secret_basic")
    registered = Registered(client, "planted-registration-token", "planted-registration-url")
    held = secrets.grant_of(connection)
    returned = Returned(state="planted-state", code="planted-code", error="", iss="")
    row = Connection.objects.filter(id=connection.id).values().get()
    for told in (connection, client, registered, held, returned, NoTokens("no"), CannotOpen()):
        assert "planted-" not in f"{told!r} {told}", type(told)
    watch.look_at("a row", repr(row))


def _begun():
    return Authorization.objects.select_related("secrets_key").get()
