"""Says how often clients may call the auth endpoints (SPEC §3). API.md lists the rates."""

from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac
from rest_framework.request import Request

from accounts.emails import Email, NotAnEmail, read_email
from accounts.models import Session, StaffSession
from pipedai.api.throttling import Rate, Throttle, by_address, by_caller

_KNOWN_FOR = timedelta(days=30)

FAILED_LOGIN_ROWS = Rate("failed-login-rows", limit=1, seconds=60)


def address_digest(request: Request) -> bytes:
    """Returns the HMAC that a session's row keeps of the address it was opened from."""
    return _digest_under(settings.SECRET_KEY, request)


def _digest_under(secret: str, request: Request) -> bytes:
    address = by_address(request)
    return salted_hmac(
        "pipedai.session-address", address, secret=secret, algorithm="sha256"
    ).digest()


def _account(request: Request) -> Email | None:
    """Returns the account that a login names, or None for a body that names none (validation refuses it later)."""
    body = request.data
    email = body.get("email") if isinstance(body, dict) else None
    try:
        return read_email(email) if isinstance(email, str) else None
    except NotAnEmail:
        return None


def _account_and_address(request: Request) -> str | None:
    account = _account(request)
    return None if account is None else f"{by_address(request)} {account}"


def _account_from_an_unknown_address(request: Request) -> str | None:
    """Returns the account to count, or None (not counted) from an address that its user has logged in from lately.

    So nobody can lock the owner of an account out.
    """
    account = _account(request)
    if account is None:
        return None
    # The keys before a rotation of SECRET_KEY are tried too, so that known addresses stay known.
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    known = {
        "user__email": account,
        "address_digest__in": [_digest_under(key, request) for key in keys],
        "created_at__gt": Now() - _KNOWN_FOR,
    }
    if Session.objects.filter(**known).exists() or StaffSession.objects.filter(**known).exists():
        return None
    return account


LOGIN = (
    Throttle(Rate("login-address", limit=60, seconds=60), by_address),
    Throttle(Rate("login-account-address", limit=10, seconds=60), _account_and_address),
    Throttle(Rate("login-account", limit=60, seconds=3600), _account_from_an_unknown_address),
)
REGISTER = (Throttle(Rate("register", limit=30, seconds=3600), by_address),)
CHANGE_PASSWORD = (Throttle(Rate("change-password", limit=10, seconds=60), by_caller),)
# Limits how often a staff user may try passwords and codes on their own account's page in admin.
STAFF_ACCOUNT = Rate("staff-account", limit=10, seconds=60)
# Looking up users and adding members share one count, since both tell who has an account.
FIND_USER = (
    Throttle(Rate("find-user", limit=120, seconds=3600), by_caller),
    Throttle(Rate("find-user-address", limit=240, seconds=3600), by_address),
)
