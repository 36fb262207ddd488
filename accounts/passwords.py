"""Hashes and verifies passwords with Argon2id, only a few at once, because each hash takes much memory.
docs/decisions/password-turns.md says how requests wait for their turn.
"""

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from accounts.models import User
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Forbidden, Invalid, Overloaded, Unauthenticated
from pipedai.env import HASH_MIB
from pipedai.server.ticket import PASSWORD, Permits

WRONG = "The e-mail address or the password is wrong."
_BUSY = "Too many logins at this moment: try again in a second."
# One permit is for one hash. The time is in seconds.
PERMITS = Permits(
    PASSWORD, settings.ARGON2_CONCURRENCY, patience=5.0, refusal=lambda: Overloaded(_BUSY)
)


class PasswordHasher(Argon2PasswordHasher):
    """Argon2id with the first of OWASP's settings: 46 MiB, one pass, one thread. The memory is freed after each hash,
    because glibc returns freed blocks of more than 32 MiB to the system.
    """

    time_cost = 1
    memory_cost = HASH_MIB * 1024
    parallelism = 1


def hash_password(password: str) -> str:
    """Returns the hash to store. Raises Overloaded if too many passwords are being hashed."""
    with PERMITS.turn():
        return make_password(password)


def is_password_of(user: User | None, password: str) -> bool:
    """Returns whether the password is the user's; False, after the same time, if `user` is None. Raises Overloaded."""
    with PERMITS.turn():
        if user is None:
            make_password(password)
            return False
        return check_password(password, user.password)


class SsoOnly(Forbidden):
    """403: OIDC_ONLY is set, so that passwords can't be used to sign in, or be changed, and users can't end links."""

    def __init__(
        self,
        sentence: str = "Passwords are turned off here: sign in with your organization's account.",
    ) -> None:
        super().__init__(sentence, code=ErrorCode.SSO_ONLY)


def check_passwords_are_on(user: User | None = None) -> None:
    """Raises SsoOnly if passwords are turned off, unless this user may still use theirs."""
    if settings.OIDC_ONLY and not (user and user.password_allowed):
        raise SsoOnly


def check_strength(password: str, user: User, *, field: str) -> None:
    """Raises Invalid if Django's validators refuse the password. The error names `field`, the field of the request."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({field: error.messages}) from None


def hold_password(user: User) -> None:
    """Keeps the verified password from being changed until the transaction ends, so that no session that the old
    password opened outlives the change. Raises Unauthenticated if it has been changed already.
    """
    unchanged = User.objects.select_for_update(no_key=True).filter(
        id=user.id, password=user.password, is_active=True
    )
    if not unchanged.exists():
        raise Unauthenticated(WRONG, code=ErrorCode.WRONG_CREDENTIALS)
