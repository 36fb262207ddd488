"""Hashes and verifies passwords with Argon2, a few at a time (SPEC §3).

Argon2 takes a good part of a second of CPU and 100 MB by design. Without a bound, a handful of
logins would hold every thread of the process; beyond it the answer is 503 at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from accounts.models import User
from pipedai.api.errors import Invalid, Overloaded

_turns = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


def hash_password(password: str) -> str:
    """The hash to store. Raises Overloaded when too many are being hashed."""
    with _turn():
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Whether it is the user's; takes as long for no user. Raises Overloaded when too many are being hashed."""
    with _turn():
        if user is None:
            make_password(password)
            return False
        return check_password(password, user.password)


def check_strength(password: str, user: User, *, field: str) -> None:
    """Raises Invalid, under the name of the request's field, for a password that Django's validators refuse."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from None


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(blocking=False):
        raise Overloaded("Too many logins at this moment: try again in a second.")
    try:
        yield
    finally:
        _turns.release()
