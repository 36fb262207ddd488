"""Hashes and verifies passwords with Argon2, and replaces hashes of older settings (SPEC §3, §19).

Argon2 takes much memory and CPU by design, so only a few hashes are computed at once. In the web process a request
waits for its turn in the password lane, without a thread: docs/decisions/password-turns.md.
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

# How long a thread waits for its turn where there is no password lane: in commands and under other servers.
_PATIENCE_SECONDS = 5.0
_turns = threading.BoundedSemaphore(settings.ARGON2_CONCURRENCY)


def hash_password(password: str) -> str:
    """Returns the hash to store. Raises Overloaded if too many passwords are being hashed."""
    with _turn(places=1):
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Whether the password is the user's. Without a user it takes as long, and returns False.

    If the password is right and its hash has older settings, this replaces the hash and sets `user.password` to the new
    one. Raises Overloaded if too many passwords are being hashed.
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

    # A deactivated user's hash is not replaced, since the time that takes would tell that the password is right.
    is_right = check_password(
        password, user.password, setter=replace_hash if user.is_active else None
    )
    if replaced:
        return is_right
    # Meanwhile another login has replaced the hash, or the password was changed. So verify against the present hash.
    user.refresh_from_db(fields=["password"])
    return check_password(password, user.password)


def _replace_hash(user: User, encoded: str) -> bool:
    """Replaces the verified hash by a new one of the same password. Returns False if another hash is stored by now.

    The password stays the same, so there is no audit row and every session continues.
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
    """Holds places for a hash, or raises Overloaded. Enter it before you write: the lane may repeat the request."""
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
