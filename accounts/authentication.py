"""The cookie substrate: authenticates browsers by the `auth_token` JWT and its session row (SPEC §3)."""

from django.db.models.functions import Now
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.models import Session
from accounts.session_tokens import BadSessionToken, verify
from pipedai.api.authentication import (
    AUTH_COOKIE,
    CHALLENGE,
    auth_cookie,
    bearer_token,
    refusal,
)
from pipedai.api.errors import Unauthenticated
from pipedai.api.principal import UserPrincipal

SESSION_ENDED = "The session has ended. Log in again."


class CookieJWTAuthentication(BaseAuthentication):
    """A user by their session cookie; stands back when an Authorization header was sent."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """The principal, None without a cookie. Raises Unauthenticated for a bad, ended or doubled one."""
        if bearer_token(request) is not None:
            return None
        cookie = auth_cookie(request)
        if cookie is None:
            return None
        principal = principal_of_cookie(cookie)
        if principal is None:
            raise Unauthenticated(SESSION_ENDED)
        return principal, AUTH_COOKIE

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class PresentedSession(BaseAuthentication):
    """The session that came with a request which needs none; one that has ended is as good as none."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """The principal, None without a live session. Raises Unauthenticated for a token and for two cookies."""
        if (token := bearer_token(request)) is not None:
            raise refusal(token)
        cookie = auth_cookie(request)
        principal = principal_of_cookie(cookie) if cookie else None
        return None if principal is None else (principal, AUTH_COOKIE)


def principal_of_cookie(cookie: str) -> UserPrincipal | None:
    """The user whose live session the cookie names, else None. One query."""
    try:
        claims = verify(cookie)
    except BadSessionToken:
        return None
    alive = Session.objects.filter(
        id=claims.session_id,
        user_id=claims.user_id,
        revoked_at__isnull=True,
        expires_at__gt=Now(),
        user__is_active=True,
    ).exists()
    return UserPrincipal(claims.user_id, claims.session_id) if alive else None
