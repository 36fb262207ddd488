"""A person authorizes a connection at its authorization server, and nobody else can."""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from django.db import connection
from django.db.models import F
from django.test import Client

from accounts.models import Session, User
from accounts.sessions import read_session_token
from pipedai.events import Actor
from pipedai.outgoing import attempts
from pipedai.outgoing.due import claim_due
from pipedai.outgoing.oauth import ask_for_tokens, challenge_of
from pipedai.sql import database_now
from testing.processes.forks import forked
from testing.processes.racing import at_once
from testing.processes.told_server import told_server
from testing.world.cast import browser, session_cookie
from testing.world.connections import (
    REFRESH_TOKEN,
    add_connection,
    add_oauth_connection,
    answer_of,
    work_off,
)
from workspaces.connections import authorizers, authorizing, secrets
from workspaces.connections.authorizing import Returned
from workspaces.connections.revoking import REVOCATIONS
from workspaces.connections.servers import discover, register_client
from workspaces.connections.services import CONNECTIONS
from workspaces.encryption.check import check_keys
from workspaces.encryption.rotation import rotate_data_keys
from workspaces.models import Authorization, Connection, Membership, Revocation

AT_MCP = "/.well-known/oauth-protected-resource/mcp"
AT_AS = "/.well-known/oauth-authorization-server"
RESOURCE = {
    "resource": "{origin}/mcp",
    "authorization_servers": ["{origin}"],
    "scopes_supported": ["read", "write"],
}
SERVER: dict[str, Any] = {
    "issuer": "{origin}",
    "authorization_endpoint": "{origin}/authorize?tenant=1",
    "token_endpoint": "{origin}/token",
    "revocation_endpoint": "{origin}/revoke",
    "registration_endpoint": "{origin}/register",
    "code_challenge_methods_supported": ["S256"],
    "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
}
MADE = {"client_id": "made-for-us", "client_secret": "planted-client-secret"}
TOKENS = {
    "access_token": "planted-access",
    "refresh_token": "planted-refresh",
    "token_type": "Bearer",
    "expires_in": 60,
}
MINUTE = timedelta(minutes=1)
HOME = {"sec-fetch-site": "same-origin"}


def pages(server=SERVER, token=(200, {}, TOKENS)):
    return {
        AT_MCP: (200, {}, RESOURCE),
        AT_AS: (200, {}, server),
        "/register": (201, {}, MADE),
        "/token": token,
    }


@pytest.fixture(autouse=True)
def _own_network(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)


@pytest.fixture(scope="module")
def origin():
    """The origin of an honest server."""
    with told_server(pages()) as origin:
        yield origin


@dataclass
class Browser:
    """The browser of a user who is signed in."""

    user: User
    cookie: str

    @classmethod
    def of(cls, user):
        return cls(user, session_cookie(user))

    def ask(self, connection_id):
        return browser(self.cookie).post(f"/api/v1/connections/{connection_id}/authorize")

    def begin(self, connection_id):
        """Begins an authorization. Returns the answer, or what the URL at the server has in its query."""
        answer = self.ask(connection_id)
        if answer.json().get("code") == "still_asking" and work_off():
            answer = self.ask(connection_id)
        return (
            dict(parse_qsl(urlsplit(answer.json()["url"]).query))
            if answer.data.get("url")
            else answer
        )

    def page(self, connection_id, **headers):
        client = Client(headers={**HOME, **headers})
        client.cookies["auth_token"] = self.cookie
        url = f"/account/connections/{connection_id}/callback"
        return lambda method, **fields: getattr(client, method)(url, fields)

    def finish(self, connection_id, **brought):
        page = self.page(connection_id)
        answer = page("post", step="connect", **brought)
        if answer.status_code == 503 and work_off():
            answer = page("post", step="connect", **brought)
        return answer

    def call(self, connection_id, **brought):
        """Calls the service as the page's form does."""
        given = {"code": "a-code", "error": "", "iss": "", **brought}
        finish = partial(
            authorizing.finish,
            connection_id=connection_id,
            session_id=read_session_token(self.cookie).session_id,
            returned=Returned(**given),
            actor=Actor("user", self.user.id),
        )
        answer_of(finish)
        return True


@pytest.fixture
def ada(cast):
    return Browser.of(cast.admin)


def add(cast, origin, **values):
    given = {"name": "Tracker", "mcp_url": f"{origin}/mcp", "grant_type": "authorization_code"}
    return CONNECTIONS.create(
        environment_id=cast.environment.id, values=given | values, actor=Actor("system")
    )


def asked_of(origin, path):
    """Returns the requests that a told server has got for a path."""
    return [each for each in httpx.get(f"{origin}/asked").json() if each[1] == path]


def text_of(page):
    return page.content.decode()


def test_the_browser_goes_to_the_server_with_all_that_the_rfcs_want(cast, origin, ada):
    connection_id = add(cast, origin)
    asked = ada.begin(connection_id)
    begun = Authorization.objects.get()
    verifier = secrets.authorization_of(begun).verifier
    assert asked == {
        "tenant": "1",
        "response_type": "code",
        "client_id": "made-for-us",
        "redirect_uri": f"http://localhost:8000/account/connections/{connection_id}/callback",
        "state": asked["state"],
        "code_challenge": challenge_of(str(verifier)),
        "code_challenge_method": "S256",
        "resource": f"{origin}/mcp",
        "scope": "read write",
    }
    assert len(asked["state"]) == 43
    # Who begins anew can't finish the earlier one.
    assert ada.begin(connection_id)["state"] != asked["state"]
    assert Authorization.objects.count() == 1
    assert Connection.objects.get().status == "unauthorized"


@pytest.mark.parametrize("grant", ["headers", "client_credentials"])
def test_other_grants_need_none(cast, ada, grant):
    other = add_connection(cast), add_oauth_connection(cast, grant_type="client_credentials").id
    refused = ada.begin(other[grant == "client_credentials"])
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_grant")


def test_a_server_that_lies_is_refused_in_a_sentence(cast, ada):
    lies = pages(SERVER | {"authorization_endpoint": "javascript:alert(1)"})
    with told_server(lies) as origin:
        refused = ada.begin(add(cast, origin))
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot_discover")
    assert "authorization_endpoint is not allowed" in refused.json()["error"]


def test_the_page_asks_and_its_form_connects(cast, origin, ada):
    connection_id = add(cast, origin)
    brought = {"state": ada.begin(connection_id)["state"], "code": "a-code", "iss": origin}
    page = ada.page(connection_id)
    asks = page("get", **brought)
    assert (asks.status_code, asks["Referrer-Policy"]) == (200, "no-referrer")
    assert "no-store" in asks["Cache-Control"]
    for shown in ("Tracker", f"{origin}/mcp", "production", 'value="a-code"'):
        assert shown in text_of(asks)
    assert Connection.objects.get().status == "unauthorized"
    done = ada.finish(connection_id, **brought)
    assert (done.status_code, "Connected." in text_of(done)) == (200, True)
    assert f"/console/connections/{connection_id}" in text_of(done)
    shown = cast.client(cast.viewer).get(f"/api/v1/connections/{connection_id}").json()
    assert (shown["status"], shown["error"]) == ("connected", None)
    assert shown["connectedBy"] == str(cast.admin.id)
    assert shown["connectedAt"] < shown["accessExpiresAt"]
    connection = Connection.objects.get()
    assert secrets.access_token_of(connection) == "planted-access"
    held = secrets.grant_of(connection)
    assert (held.client_secret, held.refresh_token) == ("planted-client-secret", "planted-refresh")
    assert held.verifier is None
    # What came once is worth nothing more.
    again = page("post", step="connect", **brought)
    assert (again.status_code, "was finished already" in text_of(again)) == (409, True)


def test_without_a_cookie_from_another_site_the_form_brings_it(cast, origin, ada):
    """COOKIE_SAMESITE=Strict keeps the cookie from a visit to which another site led."""
    connection_id = add(cast, origin)
    brought = {"state": ada.begin(connection_id)["state"], "code": "a-code"}
    url = f"/account/connections/{connection_id}/callback"
    stranger = Client(headers=HOME).get(url, brought)
    assert "Tracker" not in text_of(stranger)
    assert 'value="look"' in text_of(stranger)
    assert "Tracker" in text_of(ada.page(connection_id)("post", step="look", **brought))


class TestNothingChanges:
    @pytest.fixture
    def begun(self, cast, origin, ada):
        """Returns the id of a connection that ada has begun to authorize anew, and what the browser brings back."""
        connection = add_oauth_connection(
            cast, mcp_url=f"{origin}/mcp", issuer="https://older.example"
        )
        asked = ada.begin(connection.id)
        return connection.id, {"state": asked["state"], "code": "a-code", "iss": origin}

    @pytest.fixture
    def unchanged(self, begun):
        """Checks at the end that the connection still is what it was."""
        rows = Connection.objects.filter(id=begun[0])
        before = rows.values().get()
        yield
        assert rows.values().get() == before

    def test_for_another_session(self, cast, ada, begun, unchanged):
        connection_id, brought = begun
        for other in (Browser.of(cast.owner), Browser.of(cast.admin)):
            refused = other.finish(connection_id, **brought)
            assert (refused.status_code, "not begun in this" in text_of(refused)) == (409, True)
            assert other.page(connection_id)("get", **brought).status_code == 409
        assert Authorization.objects.count() == 1

    def test_without_a_session(self, begun, unchanged):
        connection_id, brought = begun
        url = f"/account/connections/{connection_id}/callback"
        refused = Client(headers=HOME).post(url, {"step": "connect", **brought})
        assert (refused.status_code, "Log in again" in text_of(refused)) == (401, True)

    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "", "origin": "https://evil.example"},
        ],
    )
    def test_by_the_form_of_another_site(self, ada, begun, unchanged, headers):
        connection_id, brought = begun
        refused = ada.page(connection_id, **headers)("post", step="connect", **brought)
        assert refused.status_code == 403

    def test_for_another_connection(self, cast, ada, origin, begun, unchanged):
        other = add(cast, origin)
        assert ada.finish(other, **begun[1]).status_code == 409
        assert Connection.objects.get(id=other).status == "unauthorized"

    def test_after_ten_minutes(self, ada, begun, unchanged):
        connection_id, brought = begun
        begins = authorizing.LIFETIME
        Authorization.objects.update(expires_at=F("expires_at") - begins)
        assert ada.finish(connection_id, **brought).status_code == 409

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"iss": "https://other.example"}, "did not come from the authorization server"),
            ({"error": "access_denied"}, "The authorization server refused (access_denied)."),
            ({"error": "<script>"}, "The authorization server refused (it did not say why)."),
            ({"code": ""}, "The authorization server sent no code."),
        ],
    )
    def test_by_an_answer_that_is_none(self, ada, begun, unchanged, change, sentence):
        connection_id, brought = begun
        for refused in (
            ada.page(connection_id)("get", **brought | change),
            ada.finish(connection_id, **brought | change),
        ):
            assert (refused.status_code, sentence in text_of(refused)) == (409, True)
        # It was the only try.
        assert ada.finish(connection_id, **brought).status_code == 409

    def test_once_the_role_is_gone(self, cast, ada, begun, unchanged):
        connection_id, brought = begun
        Membership.objects.filter(user=cast.admin).update(role="operator")
        assert ada.finish(connection_id, **brought).status_code == 403
        Membership.objects.filter(user=cast.admin).delete()
        assert ada.finish(connection_id, **brought).status_code == 404

    def test_once_the_session_has_ended(self, cast, ada, begun, unchanged):
        connection_id, brought = begun
        Session.objects.filter(user=cast.admin).update(revoked_at=F("created_at"))
        assert ada.finish(connection_id, **brought).status_code == 401


def test_a_server_that_promises_its_name_must_send_it(cast, ada):
    server = SERVER | {"authorization_response_iss_parameter_supported": True}
    with told_server(pages(server)) as origin:
        connection_id = add(cast, origin)
        for issuer, status in ((None, 409), (f"{origin}/", 409), (origin, 200)):
            named = {"iss": issuer} if issuer else {}
            state = ada.begin(connection_id)["state"]
            assert (
                ada.finish(connection_id, state=state, code="a-code", **named).status_code == status
            )


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        # A code of another server, as in a mix-up: it is sent to the server that was asked, and to no other.
        (
            (400, {}, {"error": "invalid_grant"}),
            "gave no token: the server refused it (invalid_grant).",
        ),
        (
            (200, {}, {"access_token": "a\nb", "token_type": "Bearer"}),
            "the answer has no bearer token",
        ),
        ((302, {"Location": "{origin}/elsewhere"}, ""), "gave no token: HTTP status 302."),
        ((200, {}, "endless"), "gave no token: answer too long."),
    ],
    ids=["a foreign code", "nonsense", "a redirect", "an endless body"],
)
def test_a_code_that_gives_no_token_changes_nothing(cast, ada, token, sentence):
    with told_server(pages(token=token)) as origin:
        connection_id = add(cast, origin)
        state = ada.begin(connection_id)["state"]
        refused = ada.finish(connection_id, state=state, code="a-code")
    assert (refused.status_code, sentence in text_of(refused)) == (409, True)
    assert Connection.objects.get().status == "unauthorized"


@pytest.mark.parametrize("lost", ["connection", "role"])
def test_what_is_taken_away_meanwhile_leaves_tokens_that_are_revoked(
    cast, ada, origin, monkeypatch, lost
):
    connection_id = add(cast, origin)
    state = ada.begin(connection_id)["state"]
    ask = ask_for_tokens

    def asking(*args, **kwargs):
        if lost == "connection":
            CONNECTIONS.delete(connection_id, actor=Actor("system"))
        else:
            Membership.objects.filter(user=cast.admin).update(role="viewer")
        return ask(*args, **kwargs)

    monkeypatch.setattr(authorizers, "ask_for_tokens", asking)
    refused = ada.finish(connection_id, state=state, code="a-code")
    assert refused.status_code == (409 if lost == "connection" else 403)
    assert [each.connection_id for each in Revocation.objects.all()] == [connection_id]
    assert not Connection.objects.exclude(status="unauthorized").exists()


def test_the_grant_before_is_revoked_unless_the_client_is_the_same(cast, ada, origin):
    """To some servers all tokens of a client are one grant, so that revoking the old one would end the new one."""
    for given in (True, False):
        connection = add_oauth_connection(
            cast, mcp_url=f"{origin}/mcp", client_given=given, issuer=origin
        )
        state = ada.begin(connection.id)["state"]
        assert ada.finish(connection.id, state=state, code="a-code").status_code == 200
        assert Revocation.objects.filter(connection_id=connection.id).exists() != given
        connection.refresh_from_db()
        assert secrets.grant_of(connection).refresh_token not in (None, REFRESH_TOKEN)


def test_two_at_once_connect_once(committed_cast, origin, monkeypatch):
    cast = committed_cast

    def outside(function):
        def called(*args, **kwargs):
            assert not connection.in_atomic_block, "a server is asked inside a transaction"
            return function(*args, **kwargs)

        return called

    for function in (discover, register_client, ask_for_tokens):
        monkeypatch.setattr(authorizers, function.__name__, outside(function))
    ada = Browser.of(cast.admin)
    connection_id = add(cast, origin)
    state = ada.begin(connection_id)["state"]
    before = asked_of(origin, "/token")
    answers = at_once(*(lambda: ada.call(connection_id, state=state) for _ in range(2)))
    # The other one waits still, or came too late.
    assert answers.count(True) == 1
    assert Connection.objects.get().status == "connected"
    assert len(asked_of(origin, "/token")) == len(before) + 1


def test_a_data_key_may_be_replaced_meanwhile(committed_cast, origin):
    ada = Browser.of(committed_cast.admin)
    connection_id = add(committed_cast, origin)
    state = ada.begin(connection_id)["state"]
    rotate_data_keys(environment_id=committed_cast.environment.id)
    assert ada.finish(connection_id, state=state, code="a-code").status_code == 200
    rotate_data_keys(environment_id=committed_cast.environment.id)
    connected = Connection.objects.get()
    assert secrets.access_token_of(connected) == "planted-access"
    assert secrets.grant_of(connected).refresh_token == "planted-refresh"
    assert not check_keys().broken


def test_who_dies_before_the_tokens_are_kept_is_asked_anew(committed_cast, origin, monkeypatch):
    cast = committed_cast
    ada = Browser.of(cast.admin)
    connection_id = add(cast, origin)
    state = ada.begin(connection_id)["state"]
    with monkeypatch.context() as patch:
        patch.setattr(authorizers, "store_tokens", lambda *_, **__: os.kill(os.getpid(), 9))
        pid = forked(lambda: ada.call(connection_id, state=state))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert Connection.objects.get().status == "unauthorized"
    # As long as its claim lasts, nobody knows that it has died.
    assert ada.finish(connection_id, state=state, code="a-code").status_code == 503
    before = asked_of(origin, "/token")
    Authorization.objects.update(leased_until=F("due_at"))
    dead = ada.finish(connection_id, state=state, code="a-code")
    assert (dead.status_code, "ended before it had finished" in text_of(dead)) == (409, True)
    # The code was not exchanged once more.
    assert asked_of(origin, "/token") == before
    state = ada.begin(connection_id)["state"]
    assert ada.finish(connection_id, state=state, code="a-code").status_code == 200


class TestTheRegisteredClient:
    @pytest.fixture
    def place(self):
        """The origin of a server that says where its clients can be removed."""
        removal = {
            "registration_access_token": "planted-registration-token",
            "registration_client_uri": "{origin}/client",
        }
        told: dict[str, Any] = {"/register": (201, {}, MADE | removal), "/client": (200, {}, "")}
        with told_server({**pages(), **told}) as origin:
            yield origin

    @pytest.fixture
    def connection_id(self, cast, place):
        return add(cast, place)

    def test_is_removed_when_nobody_has_finished(self, ada, place, connection_id):
        # Neither one that was replaced, nor one that was refused, nor one that is too late, can be finished.
        state = ada.begin(connection_id)["state"]
        assert ada.finish(connection_id, state=state, error="access_denied").status_code == 409
        for _ in range(2):
            ada.begin(connection_id)
        CONNECTIONS.delete(connection_id, actor=Actor("system"))
        now = database_now()
        assert claim_due(REVOCATIONS, room=9, busy={}, per_host=9, now=now + MINUTE * 10) == []
        rows = claim_due(REVOCATIONS, room=9, busy={}, per_host=9, now=now + MINUTE * 11)
        for row in rows:
            attempts.record(REVOCATIONS, [(row, attempts.send(REVOCATIONS, row))])
        removal = ["DELETE", "/client", "Bearer planted-registration-token"]
        assert asked_of(place, "/client") == [removal] * 3
        assert not Revocation.objects.exclude(status="delivered").exists()

    def test_stays_for_who_finishes(self, ada, connection_id):
        state = ada.begin(connection_id)["state"]
        assert ada.finish(connection_id, state=state, code="a-code").status_code == 200
        assert not Revocation.objects.exists()
        held = secrets.grant_of(Connection.objects.get())
        assert held.registration_token == "planted-registration-token"

    def test_gives_no_tokens_once_it_is_being_removed(self, ada, connection_id):
        state = ada.begin(connection_id)["state"]
        Revocation.objects.update(next_attempt_at=F("next_attempt_at") + MINUTE)
        late = ada.finish(connection_id, state=state, code="a-code")
        assert (late.status_code, "It took too long." in text_of(late)) == (409, True)
        assert Connection.objects.get().status == "unauthorized"
        purposes = Revocation.objects.order_by("purpose").values_list("purpose", flat=True)
        assert list(purposes) == ["client", "token"]


class TestTheClient:
    def test_is_whom_a_user_gave(self, cast, ada, origin):
        known = {"client_id": "ours", "client_secret": "planted-own-secret"}
        assert ada.begin(add(cast, origin, **known))["client_id"] == "ours"
        assert Authorization.objects.get().auth_method == "client_secret_post"
        assert ada.begin(add(cast, origin, client_id="public"))["client_id"] == "public"
        assert Authorization.objects.latest("id").auth_method == "none"

    def test_is_a_document_where_the_server_takes_one(self, cast, ada, settings):
        settings.PUBLIC_URL = "https://pipedai.example"
        server = SERVER | {"client_id_metadata_document_supported": True}
        with told_server(pages(server)) as origin:
            connection_id = add(cast, origin, scopes=["read"])
            asked = ada.begin(connection_id)
        url = f"https://pipedai.example/account/connections/{connection_id}/client.json"
        assert asked["client_id"] == url
        document = Client().get(urlsplit(url).path)
        assert document.json() == {
            "client_id": url,
            "scope": "read",
            "client_name": "PipedAI",
            "redirect_uris": [asked["redirect_uri"]],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }

    def test_has_no_document_if_it_is_another(self, cast, origin):
        for known in (add(cast, origin, client_id="ours"), add_connection(cast)):
            assert Client().get(f"/account/connections/{known}/client.json").status_code == 404
