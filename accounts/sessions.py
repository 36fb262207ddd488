"""Opens, lists and ends the browser sessions of users, in the API and in Django admin (SPEC §3, §10, §15).

The setting SESSION_ENGINE names this module. A session of Django admin lasts for eight hours.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db import transaction
from django.db.models import Case, JSONField, QuerySet, Value, When
from django.db.models.functions import Now
from django.utils.crypto import get_random_string
from rest_framework.request import Request

from accounts.models import Session, User
from accounts.session_tokens import LIFETIME
from accounts.throttles import address_digest
from pipedai.api.errors import NotFound
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.events import Actor, Event, emit

_MAX_USER_AGENT = 255
_STAFF_LIFETIME = timedelta(hours=8)
_BACKEND = "django.contrib.auth.backends.ModelBackend"
# The length of a session's key in characters. 43 letters and digits have 256 bits.
_KEY_LENGTH = 43


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
    user: User, device: Device, lifetime: timedelta = LIFETIME, **columns: Any
) -> Session:
    """Opens a session for a user who has just logged in or registered: one of the API, unless `columns` say more."""
    return Session.objects.create(
        user=user,
        expires_at=Now() + lifetime,
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
    """Ends sessions, and forgets what Django kept in those of Django admin. Returns how many there were."""
    return sessions.update(
        revoked_at=Now(), data=Case(When(key_digest__isnull=False, then=Value({}, JSONField())))
    )


def end_session(*, principal: UserPrincipal, session_id: UUID, actor: Actor) -> None:
    """Ends one live session of the caller, which may be the request's own. Raises NotFound."""
    with transaction.atomic():
        if not end(live_sessions(principal.id).filter(id=session_id)):
            raise NotFound
        emit(_event("user.session-ended", principal, actor, 1))


def end_other_sessions(*, principal: UserPrincipal, actor: Actor) -> None:
    """Ends all sessions of the caller but the one that the request came with."""
    with transaction.atomic():
        others = live_sessions(principal.id).exclude(id=principal.session_id)
        if ended := end(others):
            emit(_event("user.session-ended", principal, actor, ended))


def _event(action: str, principal: UserPrincipal, actor: Actor, sessions: int) -> Event:
    return Event(action, actor, None, "user", principal.id, {"sessions": sessions})


class SessionStore(SessionBase):
    """The admin session that the cookie names. Only a login opens sessions; other requests store nothing."""

    def load(self) -> dict[str, Any]:
        """Returns the session's data, or an empty dict if the session has ended."""
        data = self._row().values_list("data", flat=True).first()
        if data is None:
            self._session_key = None
            return {}
        return dict(data)

    def is_empty(self) -> bool:
        """Returns True without a session. Django then sets no cookie."""
        return not self.session_key

    def exists(self, session_key: str) -> bool:
        return _live(session_key).exists()

    def create(self) -> None:
        """Does nothing: only `open_staff_session` opens a session."""

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

    @classmethod
    def clear_expired(cls) -> None:
        """Does nothing: `accounts.ready` deletes expired sessions."""

    def _row(self) -> QuerySet[Session]:
        return _live(self.session_key) if self.session_key else Session.objects.none()


def open_staff_session(user: User, device: Device) -> SessionStore:
    """Opens an admin session in the login's transaction. Its key is stored only in the response's cookie."""
    key = get_random_string(_KEY_LENGTH)
    data = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: _BACKEND,
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    open_session(user, device, _STAFF_LIFETIME, key_digest=_digest(key), data=data)
    session = SessionStore(key)
    session.modified = True  # Django's session middleware sets the cookie of a modified session.
    return session


def _live(session_key: str) -> QuerySet[Session]:
    return Session.objects.filter(
        key_digest=_digest(session_key), revoked_at__isnull=True, expires_at__gt=Now()
    )


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()
