"""Keeps the sessions of Django admin in the table `Session`; the `staff_session` cookie carries a session's key
(SPEC §10).

Django's session middleware uses `SessionStore`, because the setting SESSION_ENGINE names this module. Only
`open_staff_session` opens a session, in the login's transaction. A session lasts for eight hours; using it does not
lengthen it.
"""

import hashlib
from datetime import timedelta
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.crypto import get_random_string

from accounts.models import Session, User
from accounts.sessions import Device, end, open_session

LIFETIME = timedelta(hours=8)

_BACKEND = "django.contrib.auth.backends.ModelBackend"
# The length of a session's key in characters. 43 letters and digits have 256 bits.
_KEY_LENGTH = 43


class SessionStore(SessionBase):
    """The admin session that the request's cookie names.

    Only a login opens a session. A request whose session has ended, or that has none, therefore stores nothing, so that
    an ended session never comes back.
    """

    def load(self) -> dict[str, Any]:
        """Returns the session's data, or an empty dict if the session has ended."""
        data = self._row().values_list("data", flat=True).first()
        if data is None:
            self._session_key = None
            return {}
        return dict(data)

    def is_empty(self) -> bool:
        """Returns True for a request without a session. Django then sets no cookie, because only a login opens a
        session.
        """
        return not self.session_key

    def exists(self, session_key: str) -> bool:
        return _live(session_key).exists()

    def create(self) -> None:
        """Does nothing: only `open_staff_session` opens a session."""

    def save(self, must_create: bool = False) -> None:
        """Stores the data that the request changed. Raises UpdateError if the session has ended meanwhile."""
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
        """Does nothing: `accounts.pruning` deletes expired sessions."""

    def _row(self) -> QuerySet[Session]:
        return _live(self.session_key) if self.session_key else Session.objects.none()


def open_staff_session(user: User, device: Device) -> SessionStore:
    """Opens an admin session for the user. Its key is stored nowhere: only the response's cookie carries it. Call this
    in the login's transaction.
    """
    key = get_random_string(_KEY_LENGTH)
    data = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: _BACKEND,
        HASH_SESSION_KEY: user.get_session_auth_hash(),
    }
    open_session(user, device, LIFETIME, key_digest=_digest(key), data=data)
    session = SessionStore(key)
    session.modified = True  # Django's session middleware sets the cookie of a modified session.
    return session


def _live(session_key: str) -> QuerySet[Session]:
    return Session.objects.filter(
        key_digest=_digest(session_key), revoked_at__isnull=True, expires_at__gt=Now()
    )


def _digest(session_key: str) -> bytes:
    return hashlib.sha256(session_key.encode()).digest()
