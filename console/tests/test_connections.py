"""The screens of connections: making one of each grant, what its state means, and the click that connects it."""

import html
import re
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from accounts.models import User
from console.tests.visits import text_of, visitor
from pipedai.sql import database_now
from testing.processes.told_server import told_server
from testing.world.connections import (
    add_connection,
    add_oauth_connection,
    lose_connection,
    work_off,
)
from testing.world.users import UserFactory
from workspaces.connections.tests.test_authorizing import SERVER, add, pages
from workspaces.models import Connection, Membership

NEW = {
    "authorization_code": {},
    "client_credentials": {"clientId": "ours", "clientSecret": "planted-secret-of-a-client"},
    "headers": {
        "headers.name": "Authorization",
        "headers.value": "Bearer planted-header-of-ours",
    },
}


@pytest.mark.parametrize("grant", NEW)
def test_one_of_each_grant_is_made_and_changed(cast, grant):
    admin = visitor(cast.admin)
    path = f"/console/environments/{cast.environment.id}/connections/new?grant={grant}"
    shown = text_of(admin.get(path))
    assert ("Client secret" in shown) == (grant != "headers")
    form = {"name": "Tracker", "mcpUrl": "https://mcp.example/", "grant": grant, **NEW[grant]}
    made = admin.post(path, form)
    assert made.status_code == 303, text_of(made)
    connection = Connection.objects.get()
    assert (connection.grant_type, connection.name) == (grant, "Tracker")
    page = f"/console/connections/{connection.id}"
    assert made["Location"] == page
    assert admin.post(f"{page}/edit", {"name": "Board"}).status_code == 303
    assert "Board" in text_of(admin.get(page))
    assert admin.post(f"{page}/delete").status_code == 303
    assert not Connection.objects.exists()


def test_what_a_grant_needs_is_asked_for_at_its_field(cast):
    path = f"/console/environments/{cast.environment.id}/connections/new?grant=client_credentials"
    form = {"name": "Tracker", "mcpUrl": "https://mcp.example/", "grant": "client_credentials"}
    refused = visitor(cast.admin).post(path, form)
    assert (refused.status_code, "This field is required." in text_of(refused)) == (400, True)


@pytest.mark.parametrize(
    ("grant", "remedy"),
    [
        ("authorization_code", "Press Connect again, and sign in at the server."),
        ("client_credentials", "Give it a client secret that works."),
    ],
)
def test_its_page_says_what_is_wrong_and_what_helps(cast, grant, remedy):
    connection = add_oauth_connection(cast, grant_type=grant)
    lose_connection(connection)
    cast.add_trigger(name="Nightly", connection_id=connection.id, mcp_url=connection.mcp_url)
    shown = text_of(visitor(cast.viewer).get(f"/console/connections/{connection.id}"))
    for said in ("Needs a new login", connection.error or "?", remedy, "Nightly"):
        assert said in shown
    assert "Delete" not in shown
    add_connection(cast, name="Another")
    listed = text_of(
        visitor(cast.viewer).get(f"/console/environments/{cast.environment.id}/connections")
    )
    assert listed.index("Needs a new login") < listed.index("Another")
    form = visitor(cast.admin).get(f"/console/environments/{cast.environment.id}/triggers/new")
    assert "Issue tracker (Needs a new login)" in text_of(form)


def test_nobody_is_said_to_have_left_who_may_be_one_of_many_members(cast):
    connection = add_oauth_connection(cast, connected_by=cast.admin)
    page = f"/console/connections/{connection.id}"
    cast.environment.memberships.filter(user=cast.admin).delete()
    assert "somebody who has left" in text_of(visitor(cast.viewer).get(page))
    users = User.objects.bulk_create(UserFactory.build_batch(200))
    Membership.objects.bulk_create(
        Membership(environment=cast.environment, user=user, role="viewer")
        for user in (cast.admin, *users)
    )
    Membership.objects.filter(user=cast.admin).update(created_at=database_now() - timedelta(days=1))
    assert "somebody who has left" not in text_of(visitor(cast.viewer).get(page))


def connected(admin, page):
    """Presses Connect, while a scheduler works. Returns the page that comes of it."""
    assert admin.post(f"{page}/connect").status_code == 503
    assert work_off() == 1
    return admin.post(f"{page}/connect")


def test_one_click_shows_the_host_before_it_leads_to_the_server(cast, settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    admin = visitor(cast.admin)
    with told_server(pages()) as origin:
        page = f"/console/connections/{add(cast, origin)}"
        assert f'action="{page}/connect"' in admin.get(page).content.decode()
        going = connected(admin, page)
    assert going.status_code == 200
    shown = going.content.decode()
    # Nothing leads on by itself.
    assert "http-equiv" not in shown
    assert f'<p class="host"><strong>{urlsplit(origin).netloc}</strong></p>' in shown
    (url,) = re.findall(r'href="([^"]+/authorize[^"]+)"', shown)
    assert html.unescape(url).startswith(f"{origin}/authorize?tenant=1&response_type=code&")
    # The server is away now.
    refused = connected(admin, page)
    assert refused.status_code == 409
    assert "The MCP server tells no authorization server (could not connect)." in text_of(refused)
    assert admin.get(f"{page}/connect").status_code == 303
    assert visitor(cast.operator).post(f"{page}/connect").status_code == 403


def test_an_endpoint_elsewhere_shows_for_whom_it_signs_in_and_a_form_names_the_issuer(
    cast, settings
):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    admin = visitor(cast.admin)
    elsewhere = SERVER | {"authorization_endpoint": "https://sign-in.example/authorize"}
    with told_server(pages(elsewhere)) as origin:
        page = f"/console/connections/{add(cast, origin)}"
        shown = text_of(connected(admin, page))
    assert "sign-in.example" in shown
    assert f"It signs in for {urlsplit(origin).netloc}" in shown
    connection = add_oauth_connection(cast, client_given=True, next_issuer="https://newer.example")
    form = text_of(admin.get(f"/console/connections/{connection.id}/edit"))
    assert "It is sent to https://newer.example alone." in form
    assert "The current one stays with https://issuer.example." in form
