"""Asks MCP servers and their authorization servers: finds them, registers clients, and gets tokens.

All that is read here was written by strangers (RFC 6749, 7591, 8414, 9728). Nothing that a server says in words is
kept, and no secret is in a `repr`. Requests go through the guard of `pipedai.outgoing`, and never inside a database
transaction.
"""

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import quote_plus, urlencode, urlsplit
from uuid import UUID

from django.conf import settings

from pipedai.api.outside_urls import MAX_URL, same_origin, without_query
from pipedai.outgoing.posts import Answer, fetch, target_problem
from workspaces.connections.models import MAX_HEADERS_BYTES

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


# A token as a header may have it (RFC 6750 §2.1), without blanks.
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
# The error codes by which a server says that a grant is over: that of RFC 6749 §5.2, GitHub's and Slack's.
GRANT_ENDED = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})
# The other codes of RFC 6749 §5.2, and that of RFC 8707 §2.
_REFUSALS = GRANT_ENDED | {
    *("invalid_request", "invalid_client", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope", "invalid_target"),
}
# It stands for a code that is not among these, as nothing that the server says in words is kept.
_OTHER = "other"
# How long a token counts as living if the server does not say (RFC 6749 §5.1 leaves it open), and at most, in seconds.
UNSAID_LIFE = 3600
LONGEST_LIFE = 366 * 86_400


@dataclass(frozen=True, slots=True, repr=False)
class Client:
    """Who we are to an authorization server. `method` is one of AUTH_METHODS."""

    id: str
    secret: str | None
    method: str


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """`refresh_token` is None if the server sent none: then the one that it had sent before stays. `lives` is for how
    many seconds the access token is good, from when the request was sent. `says_life` is whether the server said so.
    """

    access_token: str
    refresh_token: str | None
    lives: int
    says_life: bool = True


class NoTokens(Exception):  # noqa: N818
    """No tokens came. The message says why in a few words of our own. `code` is the error code with which the server
    refused, which says that the same request would be refused again; None if it may help to ask again.
    """

    def __init__(self, words: str, code: str | None = None) -> None:
        super().__init__(words)
        self.code = code


def new_verifier() -> str:
    """Returns a fresh PKCE verifier of 64 characters (RFC 7636 §4.1)."""
    return secrets.token_urlsafe(48)


def challenge_of(verifier: str) -> str:
    """Returns the S256 challenge of a PKCE verifier (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def ask_for_tokens(
    endpoint: str, *, client: Client, form: Mapping[str, str], until: float | None = None
) -> Tokens:
    """Sends one request to the token endpoint, with `form` and what authenticates the client. No answer comes after
    `until`, a `deadline`. Raises NoTokens.
    """
    headers, fields = authenticated(client, form)
    body = urlencode(fields).encode()
    answer = ask(endpoint, until or deadline(), method="POST", headers=headers, body=body)
    return _tokens(answer)


def authenticated(client: Client, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the headers and the fields of a form that also authenticate the client (RFC 6749 §2.3)."""
    headers = {**ASKING, "Content-Type": "application/x-www-form-urlencoded"}
    # Many servers find the client by this field, also if it authenticates by the header (RFC 6749 §2.3.1 allows it).
    fields = {**form, "client_id": client.id}
    if client.method == "client_secret_basic":
        # Both are form-encoded before they are joined (RFC 6749 §2.3.1).
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret or '')}"
        basic = base64.b64encode(pair.encode()).decode()
        return {**headers, "Authorization": f"Basic {basic}"}, fields
    if client.method == "client_secret_post":
        fields["client_secret"] = client.secret or ""
    return headers, fields


def _tokens(answer: Answer) -> Tokens:
    if answer.error is not None:
        raise NoTokens(answer.error)
    said = answer.json_object or {}
    error, status = said.get("error"), answer.status_code
    # Atlassian refuses with 403, and GitHub and Slack may do so with 200.
    if status in (400, 401, 403) or (status == 200 and error and "access_token" not in said):
        if isinstance(error, str) and error in _REFUSALS:
            raise NoTokens(f"the server refused it ({error})", error)
        raise NoTokens(f"the server refused it (HTTP status {status})", _OTHER)
    if status != 200:
        raise NoTokens(f"HTTP status {status}")
    token, refresh = said.get("access_token"), said.get("refresh_token")
    if not _is_token(token) or str(said.get("token_type")).lower() != "bearer":
        raise NoTokens("the answer has no bearer token")
    life = _life(said.get("expires_in"))
    says_life = life is not None
    return Tokens(token, refresh if _is_token(refresh) else None, life or UNSAID_LIFE, says_life)


def _is_token(value: Any) -> TypeGuard[str]:
    """Whether a header can have it. Half of what headers may have is left for other ones."""
    return (
        isinstance(value, str)
        and len(value) <= MAX_HEADERS_BYTES // 2
        and _TOKEN.fullmatch(value) is not None
    )


def _life(seconds: Any) -> int | None:
    """Some servers send the number as a string. What is no number of seconds from 1 on counts as unsaid."""
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,12}", seconds, re.ASCII):
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        return None
    return min(seconds, LONGEST_LIFE)


# An id or a secret of a client is visible ASCII, with blanks (RFC 6749, appendix A).
WORDS = re.compile(r"[\x20-\x7e]{1,2048}", re.ASCII)
# The path of the pages about connections that are no part of the console.
PAGES: Final = "/account/connections"
# What authorization servers call us.
_NAME = "PipedAI"


@dataclass(frozen=True, slots=True)
class Registered:
    """A client that the server has made for us. With the token and at the URL it can be removed there (RFC 7592); both
    are None if the server lets nobody do so.
    """

    client: Client
    token: str | None = field(repr=False)
    url: str | None = field(repr=False)


def redirect_uri_of(connection_id: UUID) -> str:
    """Returns the page to which authorization servers send the browser back: each connection has its own."""
    return f"{settings.PUBLIC_URL}{PAGES}/{connection_id}/callback"


def document_of(connection_id: UUID) -> str:
    """Returns the URL of the connection's client ID metadata document, which is a client id where servers take such."""
    return f"{settings.PUBLIC_URL}{PAGES}/{connection_id}/client.json"


def client_metadata(
    *, redirect_uri: str, auth_method: str, scopes: Sequence[str]
) -> dict[str, Any]:
    """Returns what a server is told of us, when a client is registered or in a client ID metadata document. `scopes`
    are those that will be asked for: some servers refuse others.
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
    """Registers a client by which codes can be exchanged, before the `deadline` of the discovery. Raises CannotDiscover
    if the server makes none.
    """
    if server.registration_endpoint is None:
        raise CannotDiscover(
            "The authorization server registers no clients. Give a clientId of it."
        )
    # Servers that are built with the MCP's own Python library revoke a token only for a secret in the form.
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
    may_go = _is_word(token) and _is_word(url) and "#" not in url
    if _is_word(url) and (
        target_problem(url) or not same_origin(url, server.registration_endpoint)
    ):
        # Whoever wrote it would have us send a request of theirs, with a header of theirs, to somebody else.
        raise CannotDiscover(
            "The authorization server registered a client that another server is to remove."
        )
    return Registered(
        Client(client_id, secret if is_secret else None, method),
        token if may_go else None,
        url if may_go else None,
    )


def _is_word(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and WORDS.fullmatch(value) is not None
