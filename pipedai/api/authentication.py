"""Holds what the authentication classes for users, API keys and workers share (SPEC §3).

If a request has an Authorization header, the header alone decides who calls, and the cookie is ignored. Each view lists
the classes that it accepts. The base viewset appends `RefuseTheRest`, which answers 401 when none of them accepted the
credentials.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unauthenticated
from pipedai.api.principal import Principal

AUTH_COOKIE = "auth_token"
CHALLENGE = 'Bearer realm="pipedai"'

# Every bad token gets this sentence, because a more precise one would help only somebody who guesses tokens.
BAD_TOKEN = "The token is invalid, expired or revoked."  # noqa: S105


def bearer_token(request: Request) -> str | None:
    """Returns the token of the `Bearer` header, or None if the request has no Authorization header.

    Raises Unauthenticated for any other scheme and for an empty or ambiguous header.
    """
    header = request.META.get("HTTP_AUTHORIZATION")
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() != "bearer" or not value or "," in value:
        raise Unauthenticated(
            "The Authorization header must be: Bearer <token>.", code=ErrorCode.UNAUTHENTICATED
        )
    return str(value)


def auth_cookie(request: Request) -> str | None:
    """Returns the value of the `auth_token` cookie, or None if the request has none.

    Raises Unauthenticated when there are two such cookies: another subdomain planted one of them (cookie tossing).
    """
    if times_sent(AUTH_COOKIE, request.META) > 1:
        raise Unauthenticated(
            f"Two {AUTH_COOKIE} cookies were sent.", code=ErrorCode.UNAUTHENTICATED
        )
    value = request.COOKIES.get(AUTH_COOKIE)
    return str(value) if value else None


def times_sent(cookie: str, meta: Mapping[str, Any]) -> int:
    """Counts the cookies of this name in a request, because Django's `COOKIES` keeps only one of several."""
    header = meta.get("HTTP_COOKIE", "")
    return [pair.partition("=")[0].strip() for pair in header.split(";")].count(cookie)


def refusal(token: str) -> Unauthenticated:
    """Returns the error to raise for a Bearer token of a kind that this view does not accept.

    Its sentence names the kind.
    """
    prefix = tokens.prefix_of(token)
    if prefix is None:
        return bad_token()
    return _not_accepted(tokens.KINDS[prefix])


def bad_token(code: ErrorCode = ErrorCode.INVALID_TOKEN) -> Unauthenticated:
    """Returns the error to raise for a Bearer token that does not work. Its sentence is the same for every code."""
    return Unauthenticated(BAD_TOKEN, code=code)


def _not_accepted(credentials: str) -> Unauthenticated:
    return Unauthenticated(
        f"{credentials} is not accepted on this endpoint.",
        code=ErrorCode.CREDENTIALS_NOT_ACCEPTED,
    )


class BearerAuthentication(BaseAuthentication):
    """Base of the classes that authenticate by a Bearer token.

    A subclass names one prefix of tokens and finds their owner.
    """

    prefix: ClassVar[str]

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        """Returns the principal and the token, or None if the request has no token with this class's prefix."""
        token = bearer_token(request)
        if token is None:
            return None
        prefix = tokens.prefix_of(token)
        if prefix is None:
            raise bad_token()
        if prefix != self.prefix:
            return None
        principal = self.find(tokens.digest(token))
        if principal is None:
            raise bad_token()
        return principal, self.prefix

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE

    def find(self, digest: bytes) -> Principal | None:
        """Returns the principal whose token has this SHA-256, or None if the token is unknown or revoked. Raises
        Unauthenticated if the token has expired.
        """
        raise NotImplementedError


class RefuseTheRest(BaseAuthentication):
    """Comes last in each view's list of authentication classes, and refuses credentials that no other class accepted.

    The error's sentence names the kind of credential that was sent.
    """

    def authenticate(self, request: Request) -> None:
        """Returns None if the request has no credentials. Raises Unauthenticated otherwise."""
        token = bearer_token(request)
        if token is not None:
            raise refusal(token)
        if auth_cookie(request) is not None:
            raise _not_accepted("The session cookie")

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
