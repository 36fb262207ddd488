"""Authenticates browsers by the JWT in the `auth_token` cookie and the session row that it names (SPEC §3)."""

from datetime import timedelta

from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.models import Session
from accounts.session_tokens import BadSessionToken, ExpiredSessionToken, verify
from pipedai.api.authentication import (
    AUTH_COOKIE,
    CHALLENGE,
    auth_cookie,
    bearer_token,
    refusal,
)
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unauthenticated
from pipedai.api.exceptions import unless_read_only
from pipedai.api.principal import UserPrincipal
from pipedai.sql import execute

_NOTED_EVERY = timedelta(seconds=10)
# Writes when the session was last used. If another transaction has locked the session's row, this changes nothing and
# does not wait: the next call will write it.
_NOTE_USE = """
UPDATE session SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM session WHERE id = %(id)s FOR NO KEY UPDATE SKIP LOCKED)
"""


class CookieJWTAuthentication(BaseAuthentication):
    """Authenticates a user by their session cookie, unless the request has an Authorization header."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """Raises Unauthenticated if the cookie is invalid or the request has two such cookies."""
        if bearer_token(request) is not None:
            return None
        cookie = auth_cookie(request)
        if cookie is None:
            return None
        return principal_of_cookie(cookie), AUTH_COOKIE

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class PresentedSession(BaseAuthentication):
    """Finds the user's session for endpoints that also answer without one. An ended session counts as none."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """Raises Unauthenticated if the request has an API token or two session cookies."""
        if (token := bearer_token(request)) is not None:
            raise refusal(token)
        cookie = auth_cookie(request)
        if cookie is None:
            return None
        try:
            return principal_of_cookie(cookie), AUTH_COOKIE
        except Unauthenticated:
            return None


def session_ended(code: ErrorCode = ErrorCode.INVALID_TOKEN) -> Unauthenticated:
    """Returns the error to raise for a session that does not work. Its sentence is the same for every code."""
    return Unauthenticated("The session has ended. Log in again.", code=code)


def principal_of_cookie(cookie: str) -> UserPrincipal:
    """Raises Unauthenticated. Makes one query, and at most every 10 s a second one that notes the session's use."""
    try:
        user = verify(cookie)
    except ExpiredSessionToken:
        raise session_ended(ErrorCode.TOKEN_EXPIRED) from None
    except BadSessionToken:
        raise session_ended() from None
    found = Session.objects.filter(
        id=user.session_id,
        user_id=user.id,
        revoked_at__isnull=True,
        user__is_active=True,
    ).values_list(
        ExpressionWrapper(Q(expires_at__gt=Now()), BooleanField()),
        ExpressionWrapper(Q(last_used_at__gt=Now() - _NOTED_EVERY), BooleanField()),
    )
    for is_running, is_noted in found:
        if not is_running:
            raise session_ended(ErrorCode.TOKEN_EXPIRED)
        if not is_noted:
            with unless_read_only():
                execute(_NOTE_USE, {"id": user.session_id})
        return user
    raise session_ended()
