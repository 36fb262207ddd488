"""Says who we are to an authorization server: registers a client, or describes one (SPEC §24; RFC 7591)."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from uuid import UUID

from django.conf import settings

from pipedai.api.outside_urls import same_origin
from pipedai.outgoing import target_problem
from workspaces.connections.discovery import (
    ASKING,
    AUTH_METHODS,
    CannotDiscover,
    Discovered,
    ask,
    deadline,
)
from workspaces.connections.tokens import Client

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
