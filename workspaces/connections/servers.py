"""Asks MCP servers for their authorization servers (RFC 9728), and registers clients with these (RFC 7591).

Strangers wrote all answers that are read here, so they are treated as `pipedai.outgoing.oauth` says.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings

from pipedai.api.outside_urls import MAX_URL, same_origin, without_query
from pipedai.outgoing.oauth import (
    ASKING,
    AUTH_METHODS,
    CannotDiscover,
    Client,
    ask,
    check_target,
    deadline,
    endpoint_of,
    first_of,
    needed,
    origin_in,
    server_metadata,
    well_known,
    words_in,
)
from pipedai.outgoing.posts import target_problem

_RESOURCE_METADATA = re.compile(r'[\s,]resource_metadata="([^"\\]*)"', re.IGNORECASE)
_SCOPE = re.compile(r'[\s,]scope="([^"\\]*)"', re.IGNORECASE)
# A scope is visible ASCII without `"` and `\` (RFC 6749 §3.3). At most this many scopes of this length are kept.
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", re.ASCII)
MOST_SCOPES = 100


@dataclass(frozen=True, slots=True)
class Discovered:
    """An authorization server, as its metadata and those of the MCP server describe it; all URLs are checked.

    `resource` names the MCP server in requests (RFC 8707). `scopes` are those that the MCP server asks for, or all that
    it knows. `sends_issuer` says that each of its answers must name the issuer (RFC 9207). `takes_documents` says that
    the URL of a client ID metadata document may be a client id.
    """

    resource: str
    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None
    registration_endpoint: str | None
    revocation_endpoint: str | None
    auth_methods: tuple[str, ...]
    scopes: tuple[str, ...]
    sends_issuer: bool
    takes_documents: bool


def discover(mcp_url: str, *, with_codes: bool, until: float | None = None) -> Discovered:
    """Asks the MCP server, and then the authorization server that it names first. `with_codes` is true for the grant
    `authorization_code`, which needs an authorization endpoint and PKCE with S256. `until` is a `deadline` shared with
    later requests. Raises CannotDiscover.
    """
    until = until or deadline()
    check_target(mcp_url, "the MCP server")
    challenge = ask(mcp_url, until).challenge or ""
    resource = _resource(mcp_url, challenge, until)
    name = _checked_resource(resource, mcp_url)
    issuers = resource.get("authorization_servers")
    if not isinstance(issuers, list) or not issuers or not isinstance(issuers[0], str):
        raise CannotDiscover("The MCP server's metadata names no authorization server.")
    server = server_metadata(issuers[0], until)
    if with_codes and "S256" not in words_in(server.get("code_challenge_methods_supported")):
        raise CannotDiscover("The authorization server does not support PKCE with S256.")
    methods = words_in(server.get("token_endpoint_auth_methods_supported", [AUTH_METHODS[0]]))
    known = tuple(method for method in AUTH_METHODS if method in methods)
    if not known:
        raise CannotDiscover("The authorization server knows no client authentication that we do.")
    asked = _SCOPE.search(f" {challenge}")
    scopes = asked[1].split() if asked else words_in(resource.get("scopes_supported"))
    if with_codes and "offline_access" in words_in(server.get("scopes_supported")):
        # An authorization server that knows this scope gives a refresh token only for it (OpenID Connect Core §11).
        scopes = list(dict.fromkeys([*scopes, "offline_access"]))
    return Discovered(
        resource=name,
        issuer=server["issuer"],
        token_endpoint=needed(server, "token_endpoint"),
        authorization_endpoint=needed(server, "authorization_endpoint") if with_codes else None,
        registration_endpoint=endpoint_of(server, "registration_endpoint"),
        revocation_endpoint=endpoint_of(server, "revocation_endpoint"),
        auth_methods=known,
        scopes=tuple(each for each in scopes if SCOPE.fullmatch(each))[:MOST_SCOPES],
        sends_issuer=server.get("authorization_response_iss_parameter_supported") is True,
        takes_documents=server.get("client_id_metadata_document_supported") is True,
    )


def _resource(mcp_url: str, challenge: str, until: float) -> dict[str, Any]:
    """Returns the metadata of the MCP server, from the URL that its challenge names or from the well-known paths."""
    if named := _RESOURCE_METADATA.search(f" {challenge}"):
        check_target(named[1], "the MCP server's metadata")
        places = [named[1]]
    else:
        places = list(well_known(mcp_url, ["oauth-protected-resource"]))
        if urlsplit(mcp_url).path.strip("/"):
            places.append(f"{origin_in(mcp_url)}/.well-known/oauth-protected-resource")
    return first_of(places, "The MCP server tells no authorization server", until)


def _checked_resource(metadata: dict[str, Any], mcp_url: str) -> str:
    """Returns the `resource` of an MCP server's metadata. It must be the URL of the server or a parent of it, because a
    token for another resource could be used there.
    """
    resource = metadata.get("resource")
    wrong = CannotDiscover("The MCP server's metadata are about another resource.")
    if not isinstance(resource, str) or len(resource) > MAX_URL or target_problem(resource):
        raise wrong
    if not same_origin(resource, mcp_url) or "#" in resource:
        raise wrong
    above, below = without_query(resource), without_query(mcp_url)
    is_above = "?" not in resource and f"{below.rstrip('/')}/".startswith(f"{above.rstrip('/')}/")
    if resource != mcp_url and not (is_above and ".." not in urlsplit(mcp_url).path.split("/")):
        raise wrong
    return resource


# An id or a secret of a client is visible ASCII, with spaces (RFC 6749, appendix A).
WORDS = re.compile(r"[\x20-\x7e]{1,2048}", re.ASCII)
# The path of the pages about connections that are not part of the console.
PAGES: Final = "/account/connections"
# The name that we give ourselves at authorization servers.
_NAME = "PipedAI"


@dataclass(frozen=True, slots=True)
class Registered:
    """A client that the server has made for us. The token and the URL remove it there (RFC 7592); both are None if the
    server does not allow that.
    """

    client: Client
    token: str | None = field(repr=False)
    url: str | None = field(repr=False)


def redirect_uri_of(connection_id: UUID) -> str:
    """Returns the page to which authorization servers send the browser back: each connection has its own."""
    return f"{settings.PUBLIC_URL}{PAGES}/{connection_id}/callback"


def document_of(connection_id: UUID) -> str:
    """Returns the URL of the connection's client ID metadata document, which some servers take as a client id."""
    return f"{settings.PUBLIC_URL}{PAGES}/{connection_id}/client.json"


def client_metadata(
    *, redirect_uri: str, auth_method: str, scopes: Sequence[str]
) -> dict[str, Any]:
    """Returns how we describe ourselves to a server, at a registration or in a client ID metadata document. `scopes`
    are those that will be requested, because some servers refuse others.
    """
    asked = {"scope": " ".join(scopes)} if scopes else {}
    return {
        **asked,
        "client_name": _NAME,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": auth_method,
    }


def register_client(
    server: Discovered,
    *,
    redirect_uri: str,
    scopes: Sequence[str] = (),
    until: float | None = None,
) -> Registered:
    """Registers a client that can exchange codes, before the `deadline`. Raises CannotDiscover if that is refused."""
    if server.registration_endpoint is None:
        raise CannotDiscover(
            "The authorization server registers no clients. Give a clientId of it."
        )
    # Servers built with MCP's own Python library revoke a token only if the secret is in the form.
    in_form = "client_secret_post"
    asked = in_form if in_form in server.auth_methods else server.auth_methods[0]
    metadata = client_metadata(redirect_uri=redirect_uri, auth_method=asked, scopes=scopes)
    answer = ask(
        server.registration_endpoint,
        until or deadline(),
        method="POST",
        headers={**ASKING, "Content-Type": "application/json"},
        body=json.dumps(metadata).encode(),
    )
    said = answer.json_object or {}
    if answer.error is not None or answer.status_code not in (200, 201):
        problem = answer.error or f"HTTP status {answer.status_code}"
        raise CannotDiscover(f"The authorization server did not register a client ({problem}).")
    # The server may have chosen another way of authentication than the one that we asked for (RFC 7591 §3.2.1).
    method = said.get("token_endpoint_auth_method", asked)
    client_id, secret = said.get("client_id"), said.get("client_secret")
    is_secret = method != "none"
    if (
        not _is_word(client_id)
        or method not in AUTH_METHODS
        or (is_secret and not _is_word(secret))
    ):
        raise CannotDiscover("The authorization server registered no client that we can use.")
    token, url = said.get("registration_access_token"), said.get("registration_client_uri")
    if _is_word(url) and (
        target_problem(url) or not same_origin(url, server.registration_endpoint)
    ):
        # The author of this answer wants to make us send a request with a header of theirs to another server.
        raise CannotDiscover(
            "The authorization server registered a client that another server is to remove."
        )
    if not (_is_word(token) and _is_word(url) and "#" not in url):
        token = url = None
    return Registered(Client(client_id, secret if is_secret else None, method), token, url)


def _is_word(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and WORDS.fullmatch(value) is not None
