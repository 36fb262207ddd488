"""Says whether mails can be sent, and whether proof of an address counts (SPEC §15)."""

from django.conf import settings

from accounts.models import User
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.outgoing import mail_is_on


def proof_counts() -> bool:
    """Returns whether an account needs a proved address before others can find it or give it anything.

    This is so only while a mail server is set. Without one, in development too, users could not be sure to get the mail
    that proves their address, so accounts then work without proof.
    """
    return bool(settings.EMAIL_URL)


def is_findable(user: User) -> bool:
    """Returns whether others may find the user by their address and give them something, such as a membership."""
    return user.has_proved_email or not user.must_prove_email or not proof_counts()


def check_proof(user: User) -> None:
    """Raises Conflict if `proof_counts()` is true and the user has not proved their address."""
    if proof_counts() and not user.has_proved_email:
        raise Conflict(
            "This needs a confirmed e-mail address: open the link in the mail, or ask for another one.",
            code=ErrorCode.EMAIL_UNVERIFIED,
        )


def check_mail_is_on() -> None:
    """Raises Conflict if no mail can be sent, for calls that need one."""
    if not mail_is_on():
        raise Conflict(
            "This service sends no mail: its operator has not set EMAIL_URL.",
            code=ErrorCode.MAIL_OFF,
        )
