"""Hashes and verifies passwords with Argon2, a few at a time, and replaces hashes of former settings (SPEC §3, §19).

Argon2 takes much memory and CPU by design. In the web process a request waits for its places in the password lane,
without a thread: docs/decisions/password-turns.md.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.hashers import places_of
from accounts.models import User
from accounts.staff_sessions import carry_staff_sessions_over
from pipedai.api.errors import Invalid, Overloaded
from pipedai.server.ticket import PASSWORD

# For commands, and under a server without the lane: there a thread waits for this long.
_PATIENCE_SECONDS = 5.0
_turns = threading.BoundedSemaphore(settings.ARGON2_CONCURRENCY)


def hash_password(password: str) -> str:
    """The hash to store. Raises Overloaded when too many are being hashed."""
    with _turn(places=1):
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Whether it is the user's; takes as long for no user. Raises Overloaded when too many are being hashed.

    A right password's hash of former settings is replaced, and `user.password` is then the new one.
    """
    with _turn(places=1 if user is None else places_of(user.password)):
        if user is None:
            make_password(password)
            return False
        return _verify(user, password)


def check_strength(password: str, user: User, *, field: str) -> None:
    """Raises Invalid, under the name of the request's field, for a password that Django's validators refuse."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from None


def _verify(user: User, password: str) -> bool:
    replaced = True

    def replace_hash(password: str) -> None:
        nonlocal replaced
        replaced = _replace_hash(user, make_password(password))

    # The password of a deactivated user opens nothing, and how long it takes must not tell that it is right.
    is_right = check_password(
        password, user.password, setter=replace_hash if user.is_active else None
    )
    if replaced:
        return is_right
    # Another login replaced the hash, or the password was changed: what counts is the hash of now.
    user.refresh_from_db(fields=["password"])
    return check_password(password, user.password)


def _replace_hash(user: User, encoded: str) -> bool:
    """Puts a new hash of the same password in the place of the one that was verified, if it is still there.

    It is no change of the password: no audit row tells of it, and every session goes on.
    """
    with transaction.atomic():
        if not User.objects.filter(pk=user.pk, password=user.password).update(password=encoded):
            return False
        before = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
        user.password = encoded
        carry_staff_sessions_over(user, before)
    return True


@contextmanager
def _turn(*, places: int) -> Iterator[None]:
    """Holds the places for a hash, or raises Overloaded: before anything is written, so that the lane may ask again."""
    ticket = PASSWORD.get()
    if ticket is None:
        if not _turns.acquire(timeout=_PATIENCE_SECONDS):
            raise Overloaded(_BUSY)
        try:
            yield
        finally:
            _turns.release()
    elif ticket.granted:
        yield
    else:
        ticket.places = places
        raise Overloaded(_BUSY)


_BUSY = "Too many logins at this moment: try again in a second."
