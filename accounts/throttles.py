"""Says how often clients may call the auth endpoints. API.md lists the rates."""

from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac
from rest_framework.request import Request

from accounts.emails import Email, NotAnEmail, read_email
from accounts.models import Session
from pipedai.api.throttling import Rate, Throttle, by_address, by_caller

_KNOWN_FOR = timedelta(days=30)

FAILED_LOGIN_ROWS = Rate("failed-login-rows", limit=1, seconds=60)


def address_digest(request: Request, secret: str | None = None) -> bytes:
    """Returns the HMAC of the request's IP address, under SECRET_KEY or the given `secret`. The row of a session keeps
    it, so that the address is recognised later.
    """
    address = by_address(request)
    return salted_hmac(
        "pipedai.session-address", address, secret=secret, algorithm="sha256"
    ).digest()


def _account(request: Request) -> Email | None:
    """Returns the account that the body names. Returns None without one: the request is refused later anyway."""
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
    """Returns the account whose tries a throttle counts. Returns None if the user has lately logged in from this
    address, so that other people's wrong tries can't lock the user out.
    """
    account = _account(request)
    if account is None:
        return None
    # The address's digests under older secret keys are looked for too, so that a rotation of SECRET_KEY makes no
    # address unknown.
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    known = {
        "user__email": account,
        "address_digest__in": [address_digest(request, key) for key in keys],
        "created_at__gt": Now() - _KNOWN_FOR,
    }
    return None if Session.objects.filter(**known).exists() else account


LOGIN = (
    Throttle(Rate("login-address", limit=60, seconds=60), by_address),
    Throttle(Rate("login-account-address", limit=10, seconds=60), _account_and_address),
    Throttle(Rate("login-account", limit=60, seconds=3600), _account_from_an_unknown_address),
)
# The limit for both steps of a sign-in at the issuer: its beginning, and the return from there.
SIGN_IN_AT_ISSUER = (Throttle(Rate("sso", limit=60, seconds=60), by_address),)
MAIL_LINK = (Throttle(Rate("mail-link", limit=30, seconds=3600), by_address),)
REGISTER = (Throttle(Rate("register", limit=30, seconds=3600), by_address),)
CHANGE_PASSWORD = (Throttle(Rate("change-password", limit=10, seconds=60), by_caller),)
# How often a staff user may try passwords and codes on the page of their own account in admin.
STAFF_ACCOUNT = Rate("staff-account", limit=10, seconds=60)
# Looking up a user and adding a member share one limit, since both reveal whether an e-mail address has an account.
FIND_USER = (
    Throttle(Rate("find-user", limit=120, seconds=3600), by_caller),
    Throttle(Rate("find-user-address", limit=240, seconds=3600), by_address),
)
# Limits for calls that cause mails or try the tokens of mails.
FORGOT_PASSWORD = (Throttle(Rate("forgot-password", limit=30, seconds=3600), by_address),)
RESET_PASSWORD = (Throttle(Rate("reset-password", limit=30, seconds=3600), by_address),)
UNDO_LINK = (Throttle(Rate("undo-link", limit=30, seconds=3600), by_address),)
VERIFY_EMAIL = (Throttle(Rate("verify-email", limit=30, seconds=3600), by_caller),)
RESEND_VERIFICATION = (Throttle(Rate("resend-verification", limit=10, seconds=3600), by_caller),)
# How many mails to other people a user may cause.
INVITE = (Throttle(Rate("invite", limit=20, seconds=86_400), by_caller),)
LOOK_AT_INVITATION = (Throttle(Rate("look-at-invitation", limit=120, seconds=3600), by_address),)
ACCEPT_INVITATION = (Throttle(Rate("accept-invitation", limit=30, seconds=3600), by_caller),)
CHANGE_EMAIL = (Throttle(Rate("change-email", limit=10, seconds=3600), by_caller),)
# How many mails about accounts of one kind (accounts/mails.py) an address gets. A call above the limit gets the
# usual answer, but sends nothing.
MAILS_AN_HOUR = Rate("account-mails-hour", limit=5, seconds=3600)
MAILS_A_DAY = Rate("account-mails-day", limit=20, seconds=86_400)
