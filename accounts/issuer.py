"""Asks the issuer, the operator's OpenID provider, who signs in (OpenID Connect Core and Discovery).

A sign-in may use three seconds of requests to the issuer. At most two sign-ins of a process ask at once, and others
wait for their turn without a thread, so that an issuer that hangs leaves the other threads free.
"""

import hmac
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Overloaded, Unavailable
from pipedai.outgoing.oauth import (
    ASKING,
    AUTH_METHODS,
    CannotDiscover,
    Client,
    NoTokens,
    Tokens,
    ask,
    ask_for_tokens,
    challenge_of,
    deadline,
    endpoint_of,
    first_of,
    needed,
    new_verifier,
    server_metadata,
    words_in,
)
from pipedai.server.ticket import ISSUER, Permits

SECONDS = 3.0
# The time is in seconds.
PERMITS = Permits(
    ISSUER,
    2,
    patience=5.0,
    refusal=lambda: Overloaded(
        "Too many people sign in at this moment: try again in a few seconds."
    ),
)
# How many seconds metadata and keys are cached, how many a failure to get them is, and for how many a key must be
# unknown before the keys are fetched again.
_KNOWN_SECONDS, _AWAY_SECONDS, _ANEW_SECONDS = 3600, 10, 60
_SKEW_SECONDS = 60
# Methods with a shared key are missing, because a forger could use the issuer's public key as that key.
_ALGORITHMS = frozenset(
    f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)
) | {"EdDSA"}
_LONGEST_TOKEN = 16 * 1024
_LONGEST_SUB = 255
# Entra uses this claim to say that it has verified the domain of an address, and never sends `email_verified`.
_ENTRA, _PROVED_BY_ENTRA = "login.microsoftonline.com", "xms_edov"


def is_on() -> bool:
    return bool(settings.OIDC_ISSUER)


class SignInFailed(Conflict):
    """409: the sign-in failed. The message says why, and nothing was changed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, code=ErrorCode.SSO_FAILED)


class IssuerAway(Unavailable):
    """503: the issuer did not answer in time, or not in the way that OpenID Connect requires."""

    def __init__(self, words: str) -> None:
        super().__init__(
            f"The sign-in service can't be used at the moment: {words}",
            code=ErrorCode.ISSUER_UNAVAILABLE,
            retry_after=_AWAY_SECONDS,
        )


@contextmanager
def slot() -> Iterator[float]:
    """Yields the time until which the caller may ask the issuer. Raises Overloaded."""
    with PERMITS.turn():
        yield deadline(SECONDS)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The issuer, as its metadata describe it; all URLs are checked."""

    name: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: frozenset[str]
    client: Client = field(repr=False)
    # Whether the issuer names itself beside each code (RFC 9207).
    names_itself: bool


@dataclass(frozen=True, slots=True)
class Claims:
    """What the issuer says about the person who signed in. `email` is None unless the issuer has verified it."""

    issuer: str
    sub: str
    email: str | None
    name: str


@dataclass(slots=True)
class _Known:
    """The metadata, keys and failures of the issuer that this process caches, with times of `time.monotonic`."""

    issuer: Issuer | None = None
    keys: tuple[Mapping[str, Any], ...] = ()
    until: float = 0.0
    keys_until: float = 0.0
    # From when on an unknown key may cause another request for the keys.
    anew_at: float = 0.0
    away: str = ""
    away_until: float = 0.0


_known = _Known()


def forget() -> None:
    """Empties the cache, as tests must after they change settings."""
    global _known
    _known = _Known()


def known() -> Issuer | None:
    """Returns the issuer if its metadata are cached, or None. Raises IssuerAway if it has just failed."""
    now = time.monotonic()
    if _known.issuer is not None and now < _known.until:
        return _known.issuer
    if now < _known.away_until:
        raise IssuerAway(_known.away)
    return None


def discover(until: float) -> Issuer:
    """Returns the issuer. Requests its metadata unless they are cached. Raises IssuerAway."""
    if found := known():
        return found
    with _noted_if_away():
        said = server_metadata(settings.OIDC_ISSUER, until, of_openid=True, anywhere=True)
        methods = words_in(said.get("token_endpoint_auth_methods_supported", [AUTH_METHODS[0]]))
        method = next((each for each in AUTH_METHODS[:2] if each in methods), None)
        if method is None:
            raise CannotDiscover("The issuer takes no client secret.")
        found = Issuer(
            name=said["issuer"],
            authorization_endpoint=needed(said, "authorization_endpoint", anywhere=True),
            token_endpoint=needed(said, "token_endpoint", anywhere=True),
            jwks_uri=needed(said, "jwks_uri", anywhere=True),
            userinfo_endpoint=endpoint_of(said, "userinfo_endpoint", anywhere=True),
            algorithms=_ALGORITHMS
            & {*words_in(said.get("id_token_signing_alg_values_supported", ["RS256"]))},
            client=Client(settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET, method),
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
        )
    _known.issuer, _known.until = found, time.monotonic() + _KNOWN_SECONDS
    return found


@contextmanager
def _noted_if_away() -> Iterator[None]:
    """Wraps requests to the issuer. Caches a failure, and raises it as IssuerAway."""
    try:
        yield
    except CannotDiscover as error:
        _known.away, _known.away_until = str(error), time.monotonic() + _AWAY_SECONDS
        raise IssuerAway(_known.away) from None


def redirect_uri() -> str:
    return f"{settings.PUBLIC_URL}/console/sso/callback"


def url_at(issuer: Issuer, *, state: str, nonce: str, verifier: str, **more: str) -> str:
    """Returns the issuer's URL at which the browser signs in."""
    query = {
        "response_type": "code",
        "scope": "openid email profile",
        "client_id": issuer.client.id,
        "redirect_uri": redirect_uri(),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        **more,
    }
    endpoint = issuer.authorization_endpoint
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def who(brought: Mapping[str, str], *, nonce: str, verifier: str, until: float) -> Claims:
    """Exchanges the code that a browser brought, and returns who has signed in. Raises SignInFailed, IssuerAway."""
    issuer = discover(until)
    if (issuer.names_itself or brought["iss"]) and brought["iss"] != issuer.name:
        raise SignInFailed("The answer did not come from the sign-in service that was asked.")
    tokens = exchange(issuer, brought["code"], verifier, until)
    said = _verified(issuer, tokens.id_token or "", nonce, until)
    is_told = said.keys() >= {"email", "email_verified"} or _email(issuer, said)
    if issuer.userinfo_endpoint and not is_told:
        told = _user_info(issuer.userinfo_endpoint, tokens, said["sub"], until)
        # Its word on whether an address is verified is one on its own address alone.
        if said.get("email", told.get("email")) != told.get("email"):
            told.pop("email_verified", None)
        said = {**told, **said}
    name = said.get("name")
    return Claims(
        issuer.name, said["sub"], _email(issuer, said), name if isinstance(name, str) else ""
    )


def exchange(issuer: Issuer, code: str, verifier: str, until: float) -> Tokens:
    """Exchanges a code for tokens. Raises SignInFailed if the issuer refuses the code or us, else IssuerAway."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri(),
        "code_verifier": verifier,
    }
    try:
        return ask_for_tokens(
            issuer.token_endpoint,
            client=issuer.client,
            form=form,
            until=until,
            longest=_LONGEST_TOKEN,
            anywhere=True,
        )
    except NoTokens as error:
        if error.code is None:
            raise IssuerAway(f"{error}.") from None
        raise SignInFailed(f"The sign-in service gave no token: {error}.") from None


def _verified(issuer: Issuer, token: str, nonce: str, until: float) -> dict[str, Any]:
    """Verifies an ID token, and returns its claims: the issuer must have signed it for us and for this sign-in (OpenID
    Connect Core §3.1.3.7).
    """
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header["alg"]
        if algorithm not in issuer.algorithms:
            raise SignInFailed(
                "The sign-in service signed its answer in a way that is not allowed."
            )

        def claims_by(**how: Any) -> dict[str, Any]:
            key = jwt.PyJWK(dict(_key(issuer, header.get("kid"), until, **how)), algorithm)
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=issuer.client.id,
                issuer=issuer.name,
                leeway=_SKEW_SECONDS,
                options={"require": ["iss", "aud", "exp", "iat", "sub"]},
            )

        try:
            claims = claims_by()
        except jwt.InvalidSignatureError:
            # The issuer may have exchanged a key under its old id.
            claims = claims_by(is_doubted=True)
    except (jwt.PyJWTError, ArithmeticError, LookupError, TypeError, ValueError):
        raise SignInFailed(
            "The answer of the sign-in service is not for us, or not valid."
        ) from None
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (several or "azp" in claims) and claims.get("azp") != issuer.client.id:
        raise SignInFailed("The answer of the sign-in service is for somebody else.")
    _check_text(claims)
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
        raise SignInFailed("The answer of the sign-in service is for another sign-in.")
    sub = claims["sub"]
    if not (
        isinstance(sub, str)
        and 0 < len(sub) <= _LONGEST_SUB
        and sub.isascii()
        and sub.isprintable()
    ):
        raise SignInFailed("The sign-in service gave no name of the account that can be used.")
    return claims


def _check_text(said: Mapping[str, Any]) -> None:
    """Raises SignInFailed if the issuer's answer holds a lone surrogate or NUL, which the database can't store."""
    text = json.dumps(said, ensure_ascii=False)
    if "\\u0000" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise SignInFailed("The answer of the sign-in service has characters that are no text.")


def _key(issuer: Issuer, kid: Any, until: float, *, is_doubted: bool = False) -> Mapping[str, Any]:
    """Returns the issuer's key with this id, or its only one if the token names none. If there is not one such key, or
    it `is_doubted`, the keys are fetched anew, at most once in _ANEW_SECONDS. Raises LookupError.
    """
    now = time.monotonic()
    found = _keys_named(kid)
    is_doubted = is_doubted or len(found) != 1
    if now >= _known.keys_until or (is_doubted and now >= _known.anew_at):
        if now < _known.away_until:
            raise IssuerAway(_known.away)
        _known.anew_at = now + _ANEW_SECONDS
        with _noted_if_away():
            said = first_of([issuer.jwks_uri], "It has no keys", until, anywhere=True).get("keys")
        keys = said if isinstance(said, list) else []
        _known.keys = tuple(
            key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"
        )
        _known.keys_until = now + _KNOWN_SECONDS
        found = _keys_named(kid)
    if len(found) != 1:
        raise LookupError
    return found[0]


def _keys_named(kid: Any) -> list[Mapping[str, Any]]:
    return [key for key in _known.keys if kid is None or key.get("kid") == kid]


def _user_info(endpoint: str, tokens: Tokens, sub: str, until: float) -> dict[str, Any]:
    """Returns the claims that the issuer sends only from its userinfo endpoint (OpenID Connect Core §5.3)."""
    headers = {**ASKING, "Authorization": f"Bearer {tokens.access_token}"}
    answer = ask(endpoint, until, headers=headers, anywhere=True)
    said = answer.json_object
    if answer.error is not None or answer.status_code != 200 or said is None:
        raise IssuerAway("it does not say who has signed in.")
    if said.get("sub") != sub:
        raise SignInFailed("The sign-in service told of somebody else.")
    _check_text(said)
    return said


def _email(issuer: Issuer, said: Mapping[str, Any]) -> str | None:
    proved = said.get("email_verified")
    if proved is None and urlsplit(issuer.name).hostname == _ENTRA:
        proved = said.get(_PROVED_BY_ENTRA) in (True, "1", "true")
    email = said.get("email")
    return email if proved is True and isinstance(email, str) else None


# With these codes a token endpoint refuses the client itself, and not the code that it got (RFC 6749 §5.2).
_REFUSES_US = ("invalid_client", "unauthorized_client")


def issuer_lets_us_in() -> CheckMessage:
    """Checks the issuer's metadata, and whether it knows our client, by how it refuses an invalid code."""
    until = deadline()
    try:
        found = discover(until)
    except IssuerAway as error:
        return Error(
            error.message, hint="OIDC_ISSUER is what the issuer calls itself, to the letter."
        )
    if _refuses_client(found, until):
        return Error(
            f"{found.name} does not know the client {found.client.id}, or its secret.",
            hint="Correct OIDC_CLIENT_ID and OIDC_CLIENT_SECRET.",
        )
    # Some issuers redirect to a page that shows the error, which looks the same as the right answer.
    words = {"state": token_urlsafe(16), "nonce": token_urlsafe(16), "verifier": new_verifier()}
    status = ask(url_at(found, **words, prompt="none"), until, anywhere=True).status_code
    if status is not None and 400 <= status < 500:
        return Error(
            f"{found.name} does not send browsers back to {redirect_uri()}.",
            hint="Add that redirect URI to the client there, to the letter.",
        )
    only = ", and nobody by a password" if settings.OIDC_ONLY else ""
    return Info(f"People sign in at {found.name}{only}.")


def _refuses_client(found: Issuer, until: float) -> bool:
    try:
        exchange(found, token_urlsafe(16), new_verifier(), until)
    except SignInFailed as error:
        return any(f"({code})" in error.message for code in _REFUSES_US)
    except IssuerAway:
        pass
    return False
