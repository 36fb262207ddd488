"""Asks an authorization server for tokens (SPEC §24; RFC 6749, RFC 7636).

Nothing that the server says in words is kept, and neither is any secret in a `repr`. Requests go through the guard of
`pipedai.outgoing`, and never inside a database transaction.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote_plus, urlencode

from pipedai.outgoing import Answer
from workspaces.connections.discovery import ASKING, ask, deadline
from workspaces.connections.header_field import MAX_HEADERS_BYTES

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
    """Who we are to an authorization server. `method` is one of `discovery.AUTH_METHODS`."""

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
