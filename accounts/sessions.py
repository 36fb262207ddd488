"""The browser sessions of users, in the API and in Django admin: opens them, finds them by their cookies, ends them.

The cookie `auth_token` has a JWT that names a session of the API and is stored nowhere. The cookie of Django admin has
a key; the database keeps its digest. The setting SESSION_ENGINE names this module.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db import transaction
from django.db.models import (
    Case,
    JSONField,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Now
from django.utils.crypto import get_random_string, salted_hmac
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import (
    ExpiredTokenError,
    TokenBackendError,
    TokenBackendExpiredToken,
    TokenError,
)
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session, User
from accounts.throttles import address_digest
from pipedai.api.authentication import (
    AUTH_COOKIE,
    CHALLENGE,
    auth_cookie,
    bearer_token,
    cookie_name,
    delete_cookie,
    refusal,
)
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound, Unauthenticated
from pipedai.api.exceptions import unless_read_only
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.events import Actor, Event, emit
from pipedai.sql import execute, fetch_one

LIFETIME = timedelta(days=7)
# A session that began at the issuer is shorter, so that a person who loses the account there soon loses access here.
_LIFETIMES = {Session.Began.PASSWORD.value: LIFETIME, Session.Began.SSO.value: timedelta(hours=12)}
_SAME_SITE = cast("Literal['Lax', 'Strict', 'None']", settings.COOKIE_SAMESITE)
_ALGORITHM = "HS256"
_AUDIENCE = "pipedai-api"
_MAX_USER_AGENT = 255
_STAFF_LIFETIME = timedelta(hours=8)
_JUST = timedelta(minutes=5)
_BACKEND = "django.contrib.auth.backends.ModelBackend"
# The length of a session's key in characters. 43 letters and digits have 256 bits.
_KEY_LENGTH = 43
# Each request with a cookie runs this, so Django does not build it each time.
_IN_USE = """
SELECT s.expires_at > statement_timestamp() AS is_running,
    s.last_used_at > statement_timestamp() - interval '10 seconds' AS is_noted
FROM session s JOIN user_account u ON u.id = s.user_id AND u.is_active
WHERE s.id = %(id)s AND s.user_id = %(user)s AND s.revoked_at IS NULL
"""
# Writes when the session was last used. If another transaction has locked the session's row, this changes nothing and
# does not wait: the next call will write it.
_NOTE_USE = """
UPDATE session SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM session WHERE id = %(id)s FOR NO KEY UPDATE SKIP LOCKED)
"""
_REQUIRED_CLAIMS = ("typ", "aud", "jti", "sid", "sub", "exp")


def set_auth_cookie(response: Response, session: Session) -> Response:
    """Sets the cookie of a session on the response: HttpOnly, without Domain, Secure in production."""
    response.set_cookie(
        cookie_name(AUTH_COOKIE),
        new_session_token(session.user_id, session.id),
        max_age=_LIFETIMES[session.began],
        path="/",
        secure=settings.PRODUCTION or settings.COOKIE_SAMESITE == "None",
        httponly=True,
        samesite=_SAME_SITE,
    )
    return response


def clear_auth_cookie(response: Response) -> Response:
    delete_cookie(response, AUTH_COOKIE, samesite=_SAME_SITE)
    return response


def new_session_token(user_id: UUID, session_id: UUID) -> str:
    """Makes a JWT that names the session. The JWT is valid for the time LIFETIME."""
    token = _SessionToken()
    token["sub"] = str(user_id)
    token["sid"] = str(session_id)
    return str(token)


def read_session_token(value: str) -> UserPrincipal:
    """Returns the user and session that a genuine JWT names. Raises Unauthenticated for one that has expired, that
    another party signed or that was made for another purpose.
    """
    try:
        token = _SessionToken(cast("Any", value))
        return UserPrincipal(UUID(token["sub"]), UUID(token["sid"]))
    except ExpiredTokenError:
        raise session_ended(ErrorCode.TOKEN_EXPIRED) from None
    except (TokenError, KeyError, ValueError, TypeError, AttributeError):
        raise session_ended() from None


class _FallbackTokenBackend(TokenBackend):
    """Signs with the newest key, accepts the signature of any key, and refuses a JWT without one of our claims."""

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
                    # ends, by the database's clock.
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

    @property
    def token_backend(self) -> TokenBackend:
        key = _signing_key(settings.SECRET_KEY)
        return _FallbackTokenBackend(_ALGORITHM, signing_key=key, audience=_AUDIENCE)


def _signing_key(secret: str) -> str:
    """Derives a key for session JWTs alone, so that nothing signed for another purpose is a valid session."""
    return salted_hmac("pipedai.session-jwt", "", secret=secret, algorithm="sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Device:
    """Where a request came from: its IP address, the HMAC of that address, and its User-Agent header."""

    digest: bytes
    address: str | None
    user_agent: str


def device_of(request: Request) -> Device:
    agent = str(request.META.get("HTTP_USER_AGENT", "")).encode(errors="replace").decode()
    shown = "".join(character if character.isprintable() else " " for character in agent)
    return Device(address_digest(request), address_of(request), shown[:_MAX_USER_AGENT])


def open_session(
    user: User,
    device: Device,
    lifetime: timedelta | None = None,
    *,
    began: str = Session.Began.PASSWORD.value,
    **columns: Any,
) -> Session:
    """Opens a session for a user who has just logged in or registered: of the API, unless `columns` say otherwise."""
    return Session.objects.create(
        user=user,
        began=began,
        expires_at=Now() + (lifetime or _LIFETIMES[began]),
        address_digest=device.digest,
        address=device.address,
        user_agent=device.user_agent,
        last_used_at=Now(),
        **columns,
    )


def live_sessions(user_id: UUID) -> QuerySet[Session]:
    return Session.objects.filter(
        user_id=user_id, revoked_at__isnull=True, expires_at__gt=Now(), key_digest__isnull=True
    ).defer("address_digest")


def end_sessions(user_id: UUID) -> None:
    end(Session.objects.filter(user_id=user_id, revoked_at__isnull=True))


def end(sessions: QuerySet[Session]) -> int:
    """Ends sessions, and deletes the data of those of Django admin. Returns how many there were, without the admin
    sessions that came from them, which end as well.
    """
    changes: dict[str, Any] = {
        "revoked_at": Now(),
        "data": Case(When(key_digest__isnull=False, then=Value({}, JSONField()))),
    }
    staff = Session.objects.filter(came_from__in=sessions.values("id"), revoked_at__isnull=True)
    staff.update(**changes)
    return sessions.update(**changes)


def end_session(*, principal: UserPrincipal, session_id: UUID, actor: Actor) -> None:
    """Ends one live session of the caller, which may be the request's own. Raises NotFound."""
    with transaction.atomic():
        if not end(live_sessions(principal.id).filter(id=session_id)):
            raise NotFound
        emit(Event("user.session-ended", actor, None, "user", principal.id, {"sessions": 1}))


def end_other_sessions(*, principal: UserPrincipal, actor: Actor) -> None:
    """Ends all sessions of the caller except the one that made the request, and also all those of Django admin."""
    with transaction.atomic():
        live = Session.objects.filter(user_id=principal.id, revoked_at__isnull=True)
        ended = end(live.filter(key_digest__isnull=False, expires_at__gt=Now()))
        ended += end(live_sessions(principal.id).exclude(id=principal.session_id))
        if ended:
            emit(
                Event("user.session-ended", actor, None, "user", principal.id, {"sessions": ended})
            )


class SessionStore(SessionBase):
    """The admin session that the cookie names. Only `open_staff_session` opens one, and `accounts.ready` deletes those
    that have expired. A request without a session stores nothing.
    """

    def load(self) -> dict[str, Any]:
        """Returns the session's data, or an empty dict if the session has ended."""
        data = self._row().values_list("data", flat=True).first()
        if data is None:
            self._session_key = None
            return {}
        return dict(data)

    def is_empty(self) -> bool:
        """Returns True if there is no session, so that Django sets no cookie."""
        return not self.session_key

    def save(self, must_create: bool = False) -> None:
        if self.session_key and not self._row().update(data=self._get_session(must_create)):  # type: ignore[attr-defined]
            raise UpdateError

    def delete(self, session_key: str | None = None) -> None:
        """Ends the session in the database, so that a copy of its cookie does not work any more."""
        if key := session_key or self.session_key:
            end(_live(key))

    def cycle_key(self) -> None:
        row, key = self._row(), get_random_string(_KEY_LENGTH)
        data = self._get_session()  # type: ignore[attr-defined]
        if row.update(key_digest=_digest(key)):
            self._session_key = key
            self._session_cache = data
            self.modified = True

    def _row(self) -> QuerySet[Session]:
        return _live(self.session_key) if self.session_key else Session.objects.none()


def has_just_signed_in(session_id: UUID, **how: Any) -> bool:
    """Returns whether a live session of the API began within the last five minutes, and as `how` says if it does."""
    lately = Session.objects.filter(id=session_id, created_at__gt=Now() - _JUST, **how)
    return lately.filter(revoked_at__isnull=True).exists()


def open_staff_session(user: User, device: Device, **columns: Any) -> SessionStore:
    """Opens an admin session in the login's transaction. Its key is stored only in the response's cookie."""
    key = get_random_string(_KEY_LENGTH)
    data = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: _BACKEND,
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    open_session(user, device, _STAFF_LIFETIME, key_digest=_digest(key), data=data, **columns)
    session = SessionStore(key)
    session.modified = True  # Django's session middleware sets the cookie of a modified session.
    return session


def _live(session_key: str) -> QuerySet[Session]:
    return Session.objects.filter(
        key_digest=_digest(session_key), revoked_at__isnull=True, expires_at__gt=Now()
    )


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()


class CookieJWTAuthentication(BaseAuthentication):
    """Authenticates a user by their session cookie, unless the request has an Authorization header."""

    def authenticate(self, request: Request) -> tuple[UserPrincipal, str] | None:
        """Returns the user of the cookie. Raises Unauthenticated if the cookie is invalid or there are two of them."""
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
        """Returns the user of the cookie, if any. Raises Unauthenticated for an API token or two session cookies."""
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
    """Returns the error to raise for a session that does not work. Its message is the same for every code."""
    return Unauthenticated("The session has ended. Log in again.", code=code)


def principal_of_cookie(cookie: str) -> UserPrincipal:
    """Returns the user of a cookie, and notes the session's use at most every 10 s. Raises Unauthenticated."""
    user = read_session_token(cookie)
    found = fetch_one(_IN_USE, {"id": user.session_id, "user": user.id})
    if found is None:
        raise session_ended()
    if not found["is_running"]:
        raise session_ended(ErrorCode.TOKEN_EXPIRED)
    if not found["is_noted"]:
        with unless_read_only():
            execute(_NOTE_USE, {"id": user.session_id})
    return user
