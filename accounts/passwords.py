"""Hashes and verifies passwords with Argon2, and repermits hashes that were made with older settings (SPEC §3, §19).

Argon2 takes much memory and CPU by design, so only a few hashes are computed at once. In the web process, requests that
need a hash wait in a queue (the password lane) and occupy no thread while they wait; docs/decisions/password-turns.md
says why.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.hashers import permits_of
from accounts.models import User
from accounts.staff_sessions import carry_staff_sessions_over
from pipedai.api.errors import Invalid, Overloaded
from pipedai.server.ticket import PASSWORD

# How many seconds a thread of a command waits until it may compute a hash. In the web process no thread waits: whole
# requests wait in a queue.
_PATIENCE_SECONDS = 5.0
_turns = threading.BoundedSemaphore(settings.ARGON2_CONCURRENCY)


def hash_password(password: str) -> str:
    """Returns the hash to store. Raises Overloaded if too many passwords are being hashed."""
    with _turn(permits=1):
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Returns whether this is the user's password. If `user` is None, it returns False and takes as long as for a user.

    If the password is right and its hash was made with older settings, this repermits the hash and sets `user.password`
    to the new one. Raises Overloaded if too many passwords are being hashed.
    """
    with _turn(permits=1 if user is None else permits_of(user.password)):
        if user is None:
            make_password(password)
            return False
        return _verify(user, password)


def check_strength(password: str, user: User, *, field: str) -> None:
    """Raises Invalid if Django's validators refuse the password. The error names `field`, the field of the request."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from None


def _verify(user: User, password: str) -> bool:
    replaced = True

    def replace_hash(password: str) -> None:
        nonlocal replaced
        replaced = _replace_hash(user, make_password(password))

    # Only the hash of an active user is replaced. Replacing takes time, and the longer answer would tell somebody who
    # guesses the password of a deactivated user that the guess was right.
    is_right = check_password(
        password, user.password, setter=replace_hash if user.is_active else None
    )
    if replaced:
        return is_right
    # The hash was not replaced because the stored one has changed: another login replaced it, or the password was
    # changed. The password is therefore verified against the hash that is stored now.
    user.refresh_from_db(fields=["password"])
    return check_password(password, user.password)


def _replace_hash(user: User, encoded: str) -> bool:
    """Stores a new hash of the password that was just verified. Returns False if the stored hash is no longer the one
    that was verified.

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
def _turn(*, permits: int) -> Iterator[None]:
    """A context in which the caller may compute one hash. Only a few hashes are computed at once, because each takes
    much memory: `permits` shares of the memory that may be used for hashing. Raises Overloaded if too many hashes are
    being computed.

    A command waits here for its turn. In the web process, a request's first call raises Overloaded at once; the web
    server then puts the request into a queue and repeats the whole request when there is memory for the hash. So enter
    this context before anything is written.
    """
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
        ticket.permits = permits
        raise Overloaded(_BUSY)


_BUSY = "Too many logins at this moment: try again in a second."
