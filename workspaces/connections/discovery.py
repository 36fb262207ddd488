"""Finds out how an MCP server's authorization server is asked for tokens (SPEC §24; RFC 9728, RFC 8414).

All that is read here was written by strangers. Requests go through the guard of `pipedai.outgoing`, and never inside a
database transaction.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipedai.api.outside_urls import MAX_URL, same_origin, without_query
from pipedai.outgoing import Answer, fetch, target_problem

# The headers of each request that asks a server for JSON.
ASKING = {"Accept": "application/json", "User-Agent": "PipedAI-Connections/1"}
_RESOURCE_METADATA = re.compile(r'[\s,]resource_metadata="([^"\\]*)"', re.IGNORECASE)
_SCOPE = re.compile(r'[\s,]scope="([^"\\]*)"', re.IGNORECASE)
# A scope is visible ASCII without `"` and `\` (RFC 6749 §3.3). So many scopes, and characters in each, are kept.
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", re.ASCII)
MOST_SCOPES = 100
# The ways of client authentication that we know, in the order in which we prefer them.
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
# How long all requests of one discovery, and of the registration after it, may take together, in seconds.
_SECONDS = 10.0


class CannotDiscover(Exception):  # noqa: N818
    """The server can't be connected. The message says why, as a sentence for people."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """An authorization server, as its metadata and those of the MCP server describe it; all URLs are checked.

    `resource` names the MCP server in requests (RFC 8707). `scopes` are those that the MCP server asks for, or all that
    it knows. `sends_issuer` is whether each of its answers must name the issuer (RFC 9207). `takes_documents` is
    whether the URL of a client ID metadata document may be a client id.
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


def deadline(seconds: float = _SECONDS) -> float:
    """Returns until when the requests of a discovery that begins now may take, as `time.monotonic` counts."""
    return time.monotonic() + seconds


def ask(url: str, until: float, **request: Any) -> Answer:
    """Fetches a URL, with ASKING as headers unless the `request` has others. No answer comes after `until`."""
    left = max(0.0, until - time.monotonic())
    return fetch(url, timeout=left, **{"headers": ASKING, **request})


def discover(mcp_url: str, *, with_codes: bool, until: float | None = None) -> Discovered:
    """Asks the MCP server, and then the authorization server that it names first. `with_codes` is whether the grant is
    `authorization_code`, which needs an authorization endpoint and PKCE with S256. `until` is a `deadline` that further
    requests share. Raises CannotDiscover.
    """
    until = until or deadline()
    _check_url(mcp_url, "the MCP server")
    challenge = ask(mcp_url, until).challenge or ""
    resource = _resource(mcp_url, challenge, until)
    name = _checked_resource(resource, mcp_url)
    issuers = resource.get("authorization_servers")
    if not isinstance(issuers, list) or not issuers or not isinstance(issuers[0], str):
        raise CannotDiscover("The MCP server's metadata names no authorization server.")
    server = _server(issuers[0], until)
    if with_codes and "S256" not in _words(server.get("code_challenge_methods_supported")):
        raise CannotDiscover("The authorization server does not support PKCE with S256.")
    methods = _words(server.get("token_endpoint_auth_methods_supported", [AUTH_METHODS[0]]))
    known = tuple(method for method in AUTH_METHODS if method in methods)
    if not known:
        raise CannotDiscover("The authorization server knows no client authentication that we do.")
    asked = _SCOPE.search(f" {challenge}")
    scopes = asked[1].split() if asked else _words(resource.get("scopes_supported"))
    if with_codes and "offline_access" in _words(server.get("scopes_supported")):
        # For this scope of its own an authorization server gives a refresh token (OpenID Connect Core §11).
        scopes = list(dict.fromkeys([*scopes, "offline_access"]))
    return Discovered(
        resource=name,
        issuer=server["issuer"],
        token_endpoint=_needed(server, "token_endpoint"),
        authorization_endpoint=_needed(server, "authorization_endpoint") if with_codes else None,
        registration_endpoint=_endpoint(server, "registration_endpoint"),
        revocation_endpoint=_endpoint(server, "revocation_endpoint"),
        auth_methods=known,
        scopes=tuple(each for each in scopes if SCOPE.fullmatch(each))[:MOST_SCOPES],
        sends_issuer=server.get("authorization_response_iss_parameter_supported") is True,
        takes_documents=server.get("client_id_metadata_document_supported") is True,
    )


def _resource(mcp_url: str, challenge: str, until: float) -> dict[str, Any]:
    """Returns the metadata of the MCP server: those that its challenge names, or those at the well-known paths."""
    if named := _RESOURCE_METADATA.search(f" {challenge}"):
        _check_url(named[1], "the MCP server's metadata")
        places = [named[1]]
    else:
        places = list(_well_known(mcp_url, ["oauth-protected-resource"]))
        if urlsplit(mcp_url).path.strip("/"):
            places.append(f"{_origin(mcp_url)}/.well-known/oauth-protected-resource")
    return _first(places, "The MCP server tells no authorization server", until)


def _checked_resource(metadata: dict[str, Any], mcp_url: str) -> str:
    """Returns the `resource` of an MCP server's metadata. It must be the URL of the server, or one above it: a token
    that is asked for in another's name could be used there.
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


def _server(issuer: str, until: float) -> dict[str, Any]:
    """Returns the metadata of an authorization server, whose `issuer` is the one that was asked (RFC 8414 §3.3)."""
    _check_url(issuer, "the issuer")
    if "?" in issuer:
        raise CannotDiscover("The URL of the issuer is not allowed: it has a query.")
    places = list(_well_known(issuer, ["oauth-authorization-server", "openid-configuration"]))
    if urlsplit(issuer).path.strip("/"):
        places.append(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    metadata = _first(places, "The authorization server has no metadata", until)
    said = metadata.get("issuer")
    # Servers confuse `https://host` and `https://host/`, which are the same URL (RFC 3986 §6.2.3).
    same = (_origin(issuer), f"{_origin(issuer)}/")
    if said != issuer and not (said in same and issuer in same):
        raise CannotDiscover("The authorization server's metadata are those of another issuer.")
    return metadata


def _well_known(url: str, names: Iterable[str]) -> Iterator[str]:
    """Yields the well-known URLs of these names for a URL: they stand before its path (RFC 8414 §3.1)."""
    path = urlsplit(url).path.rstrip("/")
    return (f"{_origin(url)}/.well-known/{name}{path}" for name in names)


def _first(places: Iterable[str], missing: str, until: float) -> dict[str, Any]:
    """Returns the first JSON object that one of these URLs answers with."""
    problem = "no place has it"
    for place in places:
        answer = ask(place, until)
        status, found = answer.status_code, answer.json_object
        if answer.error is None and status == 200 and found is not None:
            return found
        problem = answer.error or ("no JSON object" if status == 200 else f"HTTP status {status}")
    raise CannotDiscover(f"{missing} ({problem}).")


def _needed(server: dict[str, Any], name: str) -> str:
    url = _endpoint(server, name)
    if url is None:
        raise CannotDiscover(f"The authorization server's metadata have no {name}.")
    return url


def _endpoint(server: dict[str, Any], name: str) -> str | None:
    url = server.get(name)
    if url is None:
        return None
    _check_url(url, f"the authorization server's {name}")
    return str(url)


def _check_url(url: Any, whose: str) -> None:
    """Raises CannotDiscover unless a request may be sent to the URL, which is not said: it may hold anything."""
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii() or "#" in url:
        raise CannotDiscover(f"The URL of {whose} is not allowed.")
    if problem := target_problem(url):
        raise CannotDiscover(f"The URL of {whose} is not allowed: {problem}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _words(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
