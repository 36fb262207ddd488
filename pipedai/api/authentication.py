"""What the authentication classes of the three substrates share (SPEC §3).

A Bearer header, when present, decides alone. Each view lists the classes it accepts; `RefuseTheRest`, which the base
viewset appends, answers 401 with a sentence for credentials that none of them took.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from pipedai.api import tokens
from pipedai.api.errors import Unauthenticated
from pipedai.api.principal import Principal

AUTH_COOKIE = "auth_token"
CHALLENGE = 'Bearer realm="pipedai"'

# One sentence for every way in which a token can be bad: which one it is helps only a guesser.
BAD_TOKEN = "The token is invalid, expired or revoked."  # noqa: S105


def bearer_token(request: Request) -> str | None:
    """The token of a `Bearer` header, None without an Authorization header.

    Raises Unauthenticated for any other scheme and for an empty or ambiguous header.
    """
    header = request.META.get("HTTP_AUTHORIZATION")
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() != "bearer" or not value or "," in value:
        raise Unauthenticated("The Authorization header must be: Bearer <token>.")
    return str(value)


def auth_cookie(request: Request) -> str | None:
    """The value of the one `auth_token` cookie, None without.

    Raises Unauthenticated when there are two: one of them was planted from another subdomain (cookie tossing).
    """
    if times_sent(AUTH_COOKIE, request.META) > 1:
        raise Unauthenticated(f"Two {AUTH_COOKIE} cookies were sent.")
    value = request.COOKIES.get(AUTH_COOKIE)
    return str(value) if value else None


def times_sent(cookie: str, meta: Mapping[str, Any]) -> int:
    """How many cookies of this name a request holds; Django's `COOKIES` keeps one of them."""
    header = meta.get("HTTP_COOKIE", "")
    return [pair.partition("=")[0].strip() for pair in header.split(";")].count(cookie)


def refusal(token: str) -> Unauthenticated:
    """What to raise for a Bearer token that is not accepted here; it says what kind of token that was."""
    prefix = tokens.prefix_of(token)
    if prefix is None:
        return Unauthenticated(BAD_TOKEN)
    return Unauthenticated(f"{tokens.KINDS[prefix]} is not accepted on this endpoint.")


class BearerAuthentication(BaseAuthentication):
    """Authenticates the tokens of one prefix; a subclass says how to find the principal."""

    prefix: ClassVar[str]

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        """The principal, or None if the header is absent or holds another kind of token."""
        token = bearer_token(request)
        if token is None:
            return None
        prefix = tokens.prefix_of(token)
        if prefix is None:
            raise Unauthenticated(BAD_TOKEN)
        if prefix != self.prefix:
            return None
        principal = self.find(tokens.digest(token))
        if principal is None:
            raise Unauthenticated(BAD_TOKEN)
        return principal, self.prefix

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE

    def find(self, digest: bytes) -> Principal | None:
        """The principal whose stored SHA-256 this is, None if it does not exist or is dead."""
        raise NotImplementedError


class RefuseTheRest(BaseAuthentication):
    """Refuses credentials that no class before it took, with a sentence that names what was sent."""

    def authenticate(self, request: Request) -> None:
        """None when nothing was sent; raises Unauthenticated otherwise."""
        token = bearer_token(request)
        if token is not None:
            raise refusal(token)
        if auth_cookie(request) is not None:
            raise Unauthenticated("The session cookie is not accepted on this endpoint.")

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
