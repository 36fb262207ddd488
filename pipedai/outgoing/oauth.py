"""Asks authorization servers, as a client of theirs: reads their metadata, and gets tokens (RFC 6749, 7636, 8414).

Strangers write the answers that are read here, so no text of a server is kept, and no secret is in a `repr`. Requests
go through the guard of `pipedai.outgoing.posts`, and never inside a database transaction. Only for an issuer that the
operator has named, `anywhere` is true: its servers may also have private addresses and other ports.
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard
from urllib.parse import quote_plus, urlencode, urlsplit

from pipedai.api.outside_urls import MAX_URL
from pipedai.outgoing.posts import Answer, post, target_problem

# The headers of each request that asks a server for JSON.
ASKING = {"Accept": "application/json", "User-Agent": "PipedAI/1"}
# The supported methods of client authentication. The first one that a server supports is used.
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
# How long all requests of one discovery, and of the registration after it, may take together, in seconds.
_SECONDS = 10.0
# How many bytes of an answer are read. An honest answer is far smaller.
_MOST_BYTES = 64 * 1024


class CannotDiscover(Exception):  # noqa: N818
    """The server can't be connected. The message says why, as a sentence for people."""


def deadline(seconds: float = _SECONDS) -> float:
    """Returns the time, by `time.monotonic`, when the requests of a discovery that begins now must have ended."""
    return time.monotonic() + seconds


def ask(url: str, until: float, **request: Any) -> Answer:
    """Returns the whole answer to a GET with ASKING as headers, unless the `request` says otherwise. No answer comes
    after `until`, and one of more than `_MOST_BYTES` is an error.
    """
    how = {"method": "GET", "headers": ASKING, "body": b"", **request}
    left = max(0.0, until - time.monotonic())
    answer = post(url, timeout=left, kept=_MOST_BYTES + 1, **how)
    if len(answer.body or b"") > _MOST_BYTES:
        return replace(answer, error="answer too long", body=None)
    return answer


def server_metadata(
    issuer: str, until: float, *, of_openid: bool = False, anywhere: bool = False
) -> dict[str, Any]:
    """Returns the metadata of an authorization server (RFC 8414 §3), whose field `issuer` must equal the argument. With
    `of_openid` only OpenID's metadata count (OpenID Connect Discovery §4). Raises CannotDiscover.
    """
    check_target(issuer, "the issuer", anywhere=anywhere)
    if "?" in issuer:
        raise CannotDiscover("The URL of the issuer is not allowed: it has a query.")
    appended = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    known = [] if of_openid else ["oauth-authorization-server", "openid-configuration"]
    places = dict.fromkeys([*well_known(issuer, known), appended])
    metadata = first_of(
        places, "The authorization server has no metadata", until, anywhere=anywhere
    )
    said = metadata.get("issuer")
    # Servers confuse `https://host` and `https://host/`, which are the same URL (RFC 3986 §6.2.3).
    same = (origin_in(issuer), f"{origin_in(issuer)}/")
    if said != issuer and not (said in same and issuer in same):
        raise CannotDiscover("The authorization server's metadata are those of another issuer.")
    return metadata


def well_known(url: str, names: Iterable[str]) -> Iterator[str]:
    """Yields the well-known URLs of these names for a URL: they stand before its path (RFC 8414 §3.1)."""
    path = urlsplit(url).path.rstrip("/")
    return (f"{origin_in(url)}/.well-known/{name}{path}" for name in names)


def first_of(
    places: Iterable[str], missing: str, until: float, *, anywhere: bool = False
) -> dict[str, Any]:
    """Returns the answer of the first of these URLs that answers with a JSON object. Raises CannotDiscover."""
    problem = "no place has it"
    for place in places:
        answer = ask(place, until, anywhere=anywhere)
        status, found = answer.status_code, answer.json_object
        if answer.error is None and status == 200 and found is not None:
            return found
        problem = answer.error or ("no JSON object" if status == 200 else f"HTTP status {status}")
    raise CannotDiscover(f"{missing} ({problem}).")


def needed(server: dict[str, Any], name: str, *, anywhere: bool = False) -> str:
    url = endpoint_of(server, name, anywhere=anywhere)
    if url is None:
        raise CannotDiscover(f"The authorization server's metadata have no {name}.")
    return url


def endpoint_of(server: dict[str, Any], name: str, *, anywhere: bool = False) -> str | None:
    url = server.get(name)
    if url is None:
        return None
    check_target(url, f"the authorization server's {name}", anywhere=anywhere)
    return str(url)


def check_target(url: Any, whose: str, *, anywhere: bool = False) -> None:
    """Raises CannotDiscover unless a request may be sent to the URL. The message omits the URL, a stranger's text."""
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii() or "#" in url:
        raise CannotDiscover(f"The URL of {whose} is not allowed.")
    if problem := target_problem(url, anywhere=anywhere):
        raise CannotDiscover(f"The URL of {whose} is not allowed: {problem}")


def origin_in(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def words_in(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


# The characters that a token in a header may have (RFC 6750 §2.1). A blank is not among them.
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
# The longest token that is kept. A header has room for twice as much.
LONGEST_TOKEN = 4096
# The error codes that mean that a grant has ended: that of RFC 6749 §5.2, GitHub's and Slack's.
GRANT_ENDED = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})
# The other codes of RFC 6749 §5.2, and that of RFC 8707 §2.
_REFUSALS = GRANT_ENDED | {
    *("invalid_request", "invalid_client", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope", "invalid_target"),
}
# This word replaces every other code, because no text of the server is kept.
_OTHER = "other"
# How many seconds a token is valid: UNSAID_LIFE if the server does not say (RFC 6749 §5.1), and LONGEST_LIFE at most.
UNSAID_LIFE = 3600
LONGEST_LIFE = 366 * 86_400


@dataclass(frozen=True, slots=True, repr=False)
class Client:
    """Our id and secret as a client of an authorization server. `method` is one of AUTH_METHODS."""

    id: str
    secret: str | None
    method: str


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """The tokens of an answer. `refresh_token` is None if the server sent none; then the earlier one stays valid. The
    access token is valid for `lives` seconds after the request. `says_life` is whether the server said this number.
    """

    access_token: str
    refresh_token: str | None
    lives: int
    says_life: bool = True
    # The signed statement who has signed in. The server sends it if the request was for OpenID Connect.
    id_token: str | None = None


class NoTokens(Exception):  # noqa: N818
    """The error if no tokens came. The message says why in a few words of our own. `code` is the error code if the
    server refused, and would refuse the same request again. It is None if a later request may succeed.
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
    endpoint: str,
    *,
    client: Client,
    form: Mapping[str, str],
    until: float | None = None,
    longest: int = LONGEST_TOKEN,
    anywhere: bool = False,
) -> Tokens:
    """Sends one request to the token endpoint, with `form` and the client's authentication, and waits for the answer
    until the time `until`. Raises NoTokens, also for an access token of more than `longest` characters.
    """
    headers, fields = authenticated(client, form)
    body = urlencode(fields).encode()
    how = {"method": "POST", "headers": headers, "body": body, "anywhere": anywhere}
    answer = ask(endpoint, until or deadline(), **how)
    return _tokens(answer, longest)


def authenticated(client: Client, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns headers and form fields that carry `form` and authenticate the client (RFC 6749 §2.3)."""
    headers = {**ASKING, "Content-Type": "application/x-www-form-urlencoded"}
    # Many servers find the client by this field, also if it authenticates by the header (RFC 6749 §2.3.1 allows it).
    fields = {**form, "client_id": client.id}
    if client.method == "client_secret_basic":
        # The id and the secret are form-encoded before they are joined (RFC 6749 §2.3.1).
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret or '')}"
        basic = base64.b64encode(pair.encode()).decode()
        return {**headers, "Authorization": f"Basic {basic}"}, fields
    if client.method == "client_secret_post":
        fields["client_secret"] = client.secret or ""
    return headers, fields


def _tokens(answer: Answer, longest: int) -> Tokens:
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
    if not _is_token(token, longest) or str(said.get("token_type")).lower() != "bearer":
        raise NoTokens("the answer has no bearer token")
    life = _life(said.get("expires_in"))
    says_life = life is not None
    id_token = said.get("id_token")
    return Tokens(
        token,
        refresh if _is_token(refresh, longest) else None,
        life or UNSAID_LIFE,
        says_life,
        id_token if isinstance(id_token, str) else None,
    )


def _is_token(value: Any, longest: int) -> TypeGuard[str]:
    """Whether the value is a token that a header can hold."""
    return isinstance(value, str) and len(value) <= longest and bool(_TOKEN.fullmatch(value))


def _life(seconds: Any) -> int | None:
    """Returns a token's lifetime in seconds, which some servers send as a string. None if it is no number from 1 on."""
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,12}", seconds, re.ASCII):
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        return None
    return min(seconds, LONGEST_LIFE)
