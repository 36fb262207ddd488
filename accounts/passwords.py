"""Hashes and verifies passwords with Argon2id (SPEC §3, §19).

Argon2 takes much memory and CPU by design, so only a few hashes are computed at once. In the web process, requests that
need a hash wait in a queue (the password lane) and occupy no thread while they wait; docs/decisions/password-turns.md
says why.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from accounts.models import User
from pipedai.api.errors import Invalid, Overloaded
from pipedai.machine import HASH_MIB
from pipedai.server.ticket import PASSWORD

# How many seconds a thread of a command waits until it may compute a hash. In the web process no thread waits: whole
# requests wait in a queue.
_PATIENCE_SECONDS = 5.0
_turns = threading.BoundedSemaphore(settings.ARGON2_CONCURRENCY)
_BUSY = "Too many logins at this moment: try again in a second."


class PasswordHasher(Argon2PasswordHasher):
    """Hashes with Argon2id under the first of the settings that OWASP calls equally strong: 46 MiB, one pass, one
    thread.

    The C library (glibc) always returns a freed block of more than 32 MiB to the operating system, so the 46 MiB are
    free again after each hash. One thread uses one CPU core.
    """

    time_cost = 1
    memory_cost = HASH_MIB * 1024
    parallelism = 1


def hash_password(password: str) -> str:
    """Returns the hash to store. Raises Overloaded if too many passwords are being hashed."""
    with _turn():
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Returns whether this is the user's password. If `user` is None, it returns False and takes as long as for a user.
    Raises Overloaded if too many passwords are being hashed.
    """
    with _turn():
        if user is None:
            make_password(password)
            return False
        return check_password(password, user.password)


def check_strength(password: str, user: User, *, field: str) -> None:
    """Raises Invalid if Django's validators refuse the password. The error names `field`, the field of the request."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from None


@contextmanager
def _turn() -> Iterator[None]:
    """A context in which the caller may compute one hash. Only a few hashes are computed at once, because each takes
    much memory. Raises Overloaded if too many hashes are being computed.

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
        ticket.hashes = True
        raise Overloaded(_BUSY)
