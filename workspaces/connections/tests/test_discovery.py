"""An MCP server's authorization server is found as the RFCs say, and one that lies is refused."""

import time
from typing import Any

import pytest

from pipedai.outgoing.oauth import CannotDiscover
from testing.processes.told_server import told_server
from workspaces.connections.servers import Discovered, discover

RESOURCE = {
    "resource": "{origin}/mcp",
    "authorization_servers": ["{origin}/as", "https://other.example/"],
    "scopes_supported": ["read", "write"],
}
SERVER = {
    "issuer": "{origin}/as",
    "authorization_endpoint": "{origin}/as/authorize",
    "token_endpoint": "{origin}/as/token",
    "code_challenge_methods_supported": ["plain", "S256"],
}
AT_MCP = "/.well-known/oauth-protected-resource/mcp"
AT_AS = "/.well-known/oauth-authorization-server/as"


def pages(resource=RESOURCE, server=SERVER, **others):
    return {AT_MCP: (200, {}, resource), AT_AS: (200, {}, server), **others}


@pytest.fixture
def find(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)

    def finding(told, *, with_codes=True):
        with told_server(told) as origin:
            try:
                return origin, discover(f"{origin}/mcp", with_codes=with_codes)
            except CannotDiscover as refused:
                return origin, str(refused)

    return finding


def test_what_the_metadata_say_is_kept(find):
    more = {
        "registration_endpoint": "{origin}/as/register",
        "revocation_endpoint": "{origin}/as/revoke",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt", "client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
    }
    origin, found = find(pages(server=SERVER | more))
    assert found == Discovered(
        resource=f"{origin}/mcp",
        issuer=f"{origin}/as",
        token_endpoint=f"{origin}/as/token",
        authorization_endpoint=f"{origin}/as/authorize",
        registration_endpoint=f"{origin}/as/register",
        revocation_endpoint=f"{origin}/as/revoke",
        auth_methods=("client_secret_post", "none"),
        scopes=("read", "write"),
        sends_issuer=True,
        takes_documents=True,
    )


# Where the two documents may lie, and what the challenge of the server names.
PLACES = {
    "at the root": ("/.well-known/oauth-protected-resource", AT_AS, ""),
    "where the challenge says": ("/meta", AT_AS, 'Bearer resource_metadata="{origin}/meta"'),
    "where one of several challenges says": (
        "/meta",
        AT_AS,
        {
            "www-authenticate": 'Basic realm="x"',
            "WWW-Authenticate": 'Bearer error="y", resource_metadata="{origin}/meta"',
        },
    ),
    "OpenID's path": (AT_MCP, "/.well-known/openid-configuration/as", ""),
    "OpenID's path below": (AT_MCP, "/as/.well-known/openid-configuration", ""),
}


@pytest.mark.parametrize(("at_mcp", "at_as", "challenge"), PLACES.values(), ids=PLACES)
def test_wherever_they_lie(find, at_mcp, at_as, challenge):
    told: dict[str, Any] = {
        at_mcp: (200, {}, RESOURCE | {"resource": "{origin}"}),
        at_as: (200, {}, SERVER),
    }
    if isinstance(challenge, str):
        challenge = {"WWW-Authenticate": challenge}
    origin, found = find({**told, "/mcp": (401, challenge, "")})
    assert (found.resource, found.issuer) == (origin, f"{origin}/as")
    assert found.auth_methods == ("client_secret_basic",)


@pytest.mark.parametrize("issuer", ["{origin}", "{origin}/"])
def test_an_issuer_without_path_may_end_in_a_slash_or_not(find, issuer):
    told: dict[str, Any] = {
        AT_MCP: (200, {}, RESOURCE | {"authorization_servers": ["{origin}/"]}),
        "/.well-known/oauth-authorization-server": (200, {}, SERVER | {"issuer": issuer}),
    }
    origin, found = find(told)
    assert found.issuer == issuer.replace("{origin}", origin)


def test_the_challenge_says_which_scopes_are_needed(find):
    challenge = {"WWW-Authenticate": 'Bearer error="invalid_token", scope="mcp:tools a\tb"'}
    _, found = find(pages(**{"/mcp": (401, challenge, "")}))
    assert found.scopes == ("mcp:tools", "a", "b")


def test_a_refresh_token_is_asked_for_where_that_is_a_scope(find):
    server = SERVER | {"scopes_supported": ["openid", "offline_access"]}
    assert find(pages(server=server))[1].scopes == ("read", "write", "offline_access")
    assert find(pages(server=server), with_codes=False)[1].scopes == ("read", "write")


def test_credentials_of_a_client_need_neither_codes_nor_pkce(find):
    bare = {name: SERVER[name] for name in ("issuer", "token_endpoint")}
    _, found = find(pages(server=bare), with_codes=False)
    assert found.authorization_endpoint is None


OTHER_RESOURCE = "The MCP server's metadata are about another resource."
NO_PKCE = "The authorization server does not support PKCE with S256."
PRIVATE = "Must not name a private or reserved address that is not in WEBHOOK_ALLOWED_NETWORKS."
HTTP_ONLY = "Must be an http or https URL with a host."
REFUSED = {
    "a swapped resource": (RESOURCE | {"resource": "https://other.example/mcp"}, SERVER, OTHER_RESOURCE),
    "a resource beside it": (RESOURCE | {"resource": "{origin}/mc"}, SERVER, OTHER_RESOURCE),
    "a resource below it": (RESOURCE | {"resource": "{origin}/mcp/x"}, SERVER, OTHER_RESOURCE),
    "no resource": ({"authorization_servers": ["{origin}/as"]}, SERVER, OTHER_RESOURCE),
    "no server": (
        {"resource": "{origin}/mcp", "authorization_servers": []}, SERVER,
        "The MCP server's metadata names no authorization server.",
    ),
    "a foreign issuer": (
        RESOURCE, SERVER | {"issuer": "https://other.example"},
        "The authorization server's metadata are those of another issuer.",
    ),
    "javascript": (
        RESOURCE, SERVER | {"authorization_endpoint": "javascript:alert(1)//x"},
        f"The URL of the authorization server's authorization_endpoint is not allowed: {HTTP_ONLY}",
    ),
    "userinfo": (
        RESOURCE, SERVER | {"token_endpoint": "https://a:b@as.example/token"},
        "The URL of the authorization server's token_endpoint is not allowed: Must not hold a user name or password.",
    ),
    "our network": (
        RESOURCE, SERVER | {"token_endpoint": "http://169.254.169.254/token"},
        f"The URL of the authorization server's token_endpoint is not allowed: {PRIVATE}",
    ),
    "no token endpoint": (
        RESOURCE, {name: SERVER[name] for name in SERVER if name != "token_endpoint"},
        "The authorization server's metadata have no token_endpoint.",
    ),
    "plain PKCE": (RESOURCE, SERVER | {"code_challenge_methods_supported": ["plain"]}, NO_PKCE),
    "PKCE of another type": (RESOURCE, SERVER | {"code_challenge_methods_supported": "S256"}, NO_PKCE),
    "an unknown authentication": (
        RESOURCE, SERVER | {"token_endpoint_auth_methods_supported": ["tls_client_auth"]},
        "The authorization server knows no client authentication that we do.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("resource", "server", "problem"), REFUSED.values(), ids=REFUSED)
def test_metadata_that_lie_are_refused(find, resource, server, problem):
    assert find(pages(resource, server))[1] == problem


# Answers that are no metadata, and what is said of them.
NONSENSE = {
    "a redirect": ((302, {"Location": "{origin}/elsewhere"}, ""), "HTTP status 302"),
    "an endless body": ((200, {}, "endless"), "answer too long"),
    "no JSON": ((200, {}, "<html>"), "no JSON object"),
    "a list": ((200, {}, [1]), "no JSON object"),
    "too deep": ((200, {}, "[" * 60_000), "no JSON object"),
}


@pytest.mark.parametrize(("answer", "problem"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_no_metadata(find, answer, problem):
    told: dict[str, Any] = pages(**{"/elsewhere": (200, {}, SERVER)})
    places = (AT_AS, "/.well-known/openid-configuration/as", "/as/.well-known/openid-configuration")
    told |= dict.fromkeys(places, answer)
    assert find(told)[1] == f"The authorization server has no metadata ({problem})."


def test_all_requests_share_one_deadline(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    drips: tuple[int, dict[str, str], str] = (200, {}, "drips")
    with told_server({"/mcp": drips, AT_MCP: drips}) as origin, pytest.raises(CannotDiscover) as no:
        # The first request takes all the time there is, and so the others none.
        discover(f"{origin}/mcp", with_codes=True, until=time.monotonic() + 0.5)
    assert str(no.value) == "The MCP server tells no authorization server (timed out)."


def test_a_server_in_our_network_is_not_asked(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ()
    with pytest.raises(CannotDiscover, match="The URL of the MCP server is not allowed"):
        discover("http://127.0.0.1:9/mcp", with_codes=True)
