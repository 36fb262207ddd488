"""Authenticates browsers by the JWT in the `auth_token` cookie and the session row that it names (SPEC §3)."""

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
    """Authenticates a user by their session cookie, unless the request has an Authorization header."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """Returns the user whose session the cookie names, or None without a cookie. Raises Unauthenticated if the
        cookie is invalid or the request has two such cookies.
        """
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
    """Finds the user's session for endpoints that also answer without one, such as the login. A request whose session
    has ended counts as a request without a session.
    """

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """Returns the user whose session the cookie names, or None if there is no cookie or the session has ended.
        Raises Unauthenticated if the request has an API token or two session cookies.
        """
        if (token := bearer_token(request)) is not None:
            raise refusal(token)
        cookie = auth_cookie(request)
        principal = principal_of_cookie(cookie) if cookie else None
        return None if principal is None else (principal, AUTH_COOKIE)


def principal_of_cookie(cookie: str) -> UserPrincipal | None:
    """Returns the user whose session the cookie names, if that session has not ended, and otherwise None. It takes one
    database query.
    """
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
