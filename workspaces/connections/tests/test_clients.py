"""A client is registered at an authorization server, and what is no client is refused (RFC 7591)."""

import pytest

from pipedai.outgoing.oauth import CannotDiscover
from testing.processes.told_server import told_server
from workspaces.connections.servers import Discovered, register_client

MADE = {
    "client_id": "made-for-us",
    "client_secret": "planted-client-secret",
    "registration_access_token": "planted-registration-token",
    "registration_client_uri": "{origin}/register/1",
}


@pytest.fixture
def register(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)

    def registering(status, body, path="/register"):
        with told_server({"/register": (status, {}, body)}) as origin:
            server = Discovered(
                resource=f"{origin}/mcp",
                issuer=origin,
                token_endpoint=f"{origin}/token",
                authorization_endpoint=f"{origin}/authorize",
                registration_endpoint=path and origin + path,
                revocation_endpoint=None,
                auth_methods=("client_secret_basic", "none"),
                scopes=(),
                sends_issuer=False,
                takes_documents=False,
            )
            return origin, register_client(server, redirect_uri="https://x.example/")

    return registering


def test_the_client_authenticates_as_the_server_says_and_can_be_removed(register):
    origin, made = register(201, MADE)
    assert (made.client.id, made.client.secret) == ("made-for-us", "planted-client-secret")
    assert made.client.method == "client_secret_basic"
    assert (made.token, made.url) == ("planted-registration-token", f"{origin}/register/1")
    assert "planted" not in repr(made)
    _, public = register(200, {**MADE, "token_endpoint_auth_method": "none"})
    assert (public.client.method, public.client.secret) == ("none", None)


@pytest.mark.parametrize("url", [None, 5, "{origin}/register#1", ""])
def test_one_without_a_url_is_never_removed(register, url):
    _, made = register(201, {**MADE, "registration_client_uri": url})
    assert (made.token, made.url) == (None, None)


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/1",
        "http://127.0.0.1:1/register/1",
        "http://169.254.169.254/",
        "javascript:alert(1)",
        "http://127.0.0.1:99999/",
    ],
)
def test_a_client_that_another_server_is_to_remove_is_refused(register, url):
    with pytest.raises(CannotDiscover, match="that another server is to remove"):
        register(201, {**MADE, "registration_client_uri": url})


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (403, {"error": "planted-words"}, "did not register a client (HTTP status 403)."),
        (302, "", "did not register a client (HTTP status 302)."),
        (201, "endless", "did not register a client (answer too long)."),
        (201, "<html>", "registered no client that we can use."),
        (201, {**MADE, "client_id": "a\nb"}, "registered no client that we can use."),
        (201, {**MADE, "client_secret": None}, "registered no client that we can use."),
        (201, {**MADE, "token_endpoint_auth_method": ["none"]}, "registered no client that we can use."),
    ],
)  # fmt: skip
def test_what_is_no_client_is_refused(register, status, body, problem):
    with pytest.raises(CannotDiscover) as refused:
        register(status, body)
    assert str(refused.value) == f"The authorization server {problem}"


def test_a_server_without_registration_needs_a_given_client(register):
    with pytest.raises(CannotDiscover, match="Give a clientId of it"):
        register(201, MADE, path=None)
