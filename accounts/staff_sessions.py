"""The sessions of Django admin: rows of ours behind the `staff_session` cookie (SPEC §10).

Django's session middleware uses `SessionStore` (the setting SESSION_ENGINE names this module). A session is opened by
`open_staff_session` alone, in the transaction of the login, and lives eight hours whatever happens in it.
"""

import hashlib
from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.crypto import get_random_string

from accounts.models import StaffSession, User

LIFETIME = timedelta(hours=8)

_BACKEND = "django.contrib.auth.backends.ModelBackend"
_KEY_LENGTH = 43  # of 62 characters: 256 bits


class SessionStore(SessionBase):
    """The session that a request's cookie names. Without a live one nothing is kept, and no row is made."""

    def load(self) -> dict[str, Any]:
        """What the session holds; nothing if it has ended."""
        data = self._row().values_list("data", flat=True).first()
        if data is None:
            self._session_key = None
            return {}
        return dict(data)

    def is_empty(self) -> bool:
        """Whether the browser is to be left without a cookie: nobody has a session before the login."""
        return not self.session_key

    def exists(self, session_key: str) -> bool:
        """Whether the key names a live session."""
        return _live(session_key).exists()

    def create(self) -> None:
        """Sessions are opened by `open_staff_session`."""

    def save(self, must_create: bool = False) -> None:
        """Keeps what the request changed. Raises UpdateError if the session has ended meanwhile."""
        if self.session_key and not self._row().update(data=self._get_session(must_create)):  # type: ignore[attr-defined]
            raise UpdateError

    def delete(self, session_key: str | None = None) -> None:
        """Ends the session: a copy of its cookie is dead too."""
        if key := session_key or self.session_key:
            _end(_live(key))

    def cycle_key(self) -> None:
        """Gives the session another key; the old one is dead."""
        row, key = self._row(), get_random_string(_KEY_LENGTH)
        data = self._get_session()  # type: ignore[attr-defined]
        if row.update(key_digest=_digest(key)):
            self._session_key = key
            self._session_cache = data
            self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        """`accounts.pruning` does it."""

    def _row(self) -> QuerySet[StaffSession]:
        return _live(self.session_key) if self.session_key else StaffSession.objects.none()


def open_staff_session(user: User, address_digest: bytes) -> SessionStore:
    """A new session of the user's, whose key only the answer carries. Call it in the login's transaction."""
    key = get_random_string(_KEY_LENGTH)
    StaffSession.objects.create(
        key_digest=_digest(key),
        user=user,
        address_digest=address_digest,
        expires_at=Now() + LIFETIME,
        data={
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: _BACKEND,
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        },
    )
    session = SessionStore(key)
    session.modified = True  # has the middleware set the cookie
    return session


def end_staff_sessions(user_id: UUID) -> None:
    """Ends every session of the user's."""
    _end(StaffSession.objects.filter(user_id=user_id, ended_at__isnull=True))


def carry_staff_sessions_over(user: User, before: Collection[str]) -> None:
    """Has the user's sessions go on when the hash of the same password is replaced.

    `before` is what Django made of the old hash, to end sessions when it changes. Call it in the transaction that
    replaces the hash.
    """
    sessions = StaffSession.objects.select_for_update(no_key=True)
    for session in sessions.filter(user=user, ended_at__isnull=True):
        if session.data.get(HASH_SESSION_KEY) in before:
            session.data[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.save(update_fields=["data"])


def _live(session_key: str) -> QuerySet[StaffSession]:
    return StaffSession.objects.filter(
        key_digest=_digest(session_key), ended_at__isnull=True, expires_at__gt=Now()
    )


def _end(sessions: QuerySet[StaffSession]) -> None:
    sessions.update(ended_at=Now(), data={})


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()
