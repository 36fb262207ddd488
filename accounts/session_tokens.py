"""The `auth_token` cookie, and the JWT in it, which names a session row and is stored nowhere (SPEC §3)."""

from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, cast
from uuid import UUID

import jwt
from django.conf import settings
from django.http import HttpResponse
from django.utils.crypto import salted_hmac
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import (
    ExpiredTokenError,
    TokenBackendError,
    TokenBackendExpiredToken,
    TokenError,
)
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.api.principal import UserPrincipal

LIFETIME = timedelta(days=7)
_SAME_SITE = cast("Literal['Lax', 'Strict', 'None']", settings.COOKIE_SAMESITE)
_ALGORITHM = "HS256"
_AUDIENCE = "pipedai-api"
_REQUIRED_CLAIMS = ("typ", "aud", "jti", "sid", "sub", "exp")


class BadSessionToken(Exception):  # noqa: N818 - no error of the service: the caller has no session
    """The error for a JWT that is malformed, expired, signed by somebody else, or made for another purpose."""


class ExpiredSessionToken(BadSessionToken):
    """The error for a session's JWT that is genuine but has expired."""


def set_auth_cookie(response: HttpResponse, session: Session) -> None:
    """Sets the cookie of a session on the response: HttpOnly, without Domain, Secure in production."""
    response.set_cookie(
        AUTH_COOKIE,
        issue(session.user_id, session.id),
        max_age=LIFETIME,
        path="/",
        secure=settings.PRODUCTION or settings.COOKIE_SAMESITE == "None",
        httponly=True,
        samesite=_SAME_SITE,
    )


def clear_auth_cookie(response: HttpResponse) -> None:
    response.delete_cookie(AUTH_COOKIE, path="/", samesite=_SAME_SITE)


def issue(user_id: UUID, session_id: UUID) -> str:
    """Makes a JWT that names the session. The JWT is valid for the time LIFETIME."""
    token = _SessionToken()
    token["sub"] = str(user_id)
    token["sid"] = str(session_id)
    return str(token)


def verify(value: str) -> UserPrincipal:
    """Raises ExpiredSessionToken if the JWT has expired, and BadSessionToken if it is not valid."""
    try:
        token = _SessionToken(cast("Any", value))
        return UserPrincipal(UUID(token["sub"]), UUID(token["sid"]))
    except ExpiredTokenError:
        raise ExpiredSessionToken from None
    except (TokenError, KeyError, ValueError, TypeError, AttributeError):
        raise BadSessionToken from None


class _FallbackTokenBackend(TokenBackend):
    """Signs with the newest key, accepts those of any key, and refuses a JWT that lacks one of our claims."""

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
            try:
                return jwt.decode(
                    token,
                    _signing_key(secret),
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    # The claim `iat`, the time at which the JWT was made, is not checked. Otherwise a machine would
                    # refuse the JWTs of another machine whose clock is fast. The session's row says when the session
                    # ends, by the database's clock (SPEC §22).
                    options={"require": list(_REQUIRED_CLAIMS), "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError as error:
                raise TokenBackendExpiredToken("expired token") from error
            except jwt.InvalidTokenError as error:
                raise TokenBackendError("bad token") from error
        raise TokenBackendError("no key verifies the token")


class _SessionToken(Token):
    token_type = "session"  # noqa: S105 - the kind of token, no secret
    lifetime = LIFETIME

    @cached_property
    def _backend(self) -> TokenBackend:
        return _FallbackTokenBackend(
            _ALGORITHM, signing_key=_signing_key(settings.SECRET_KEY), audience=_AUDIENCE
        )

    @property
    def token_backend(self) -> TokenBackend:
        return self._backend


def _signing_key(secret: str) -> str:
    """Derives a key for session JWTs alone, so that nothing signed for another purpose is a valid session."""
    return salted_hmac("pipedai.session-jwt", "", secret=secret, algorithm="sha256").hexdigest()
