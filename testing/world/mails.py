"""Reads the mails about accounts that a test caused, and the tokens in their links."""

from django.db.models.functions import Now

from accounts.mails import INVITATION_LIFETIME, lifetime_of, new_token, token_with_digest
from accounts.models import AccountMail, User
from pipedai.api.tokens import digest
from pipedai.ids import new_id
from pipedai.outgoing.mails import mail_host
from workspaces.models import Environment, Invitation

MAIL_SERVER = "smtp://mail.example:25"


def mails_to(address: str) -> list[str]:
    """Returns the purposes of the mails that were queued for the address, oldest first."""
    mails = AccountMail.objects.filter(address=address).order_by("id")
    return list(mails.values_list("purpose", flat=True))


def token_to(address: str, purpose: str) -> str:
    """Returns the token in the newest mail of this purpose to the address."""
    mail = AccountMail.objects.filter(address=address, purpose=purpose).latest("id")
    token = token_with_digest(mail.id, bytes(mail.token_digest or b""))
    assert token is not None, "the mail has no token"
    return token


def prove(*users: User) -> None:
    """Makes the addresses of the users proved."""
    User.objects.filter(id__in=[user.id for user in users]).update(email_verified_at=Now())


def issue_token(purpose: str, address: str, user: User | None = None) -> str:
    """Writes a mail of this purpose as if the service had sent it, and returns the token in it."""
    mail_id = new_id()
    token = new_token(mail_id)
    AccountMail.objects.create(
        id=mail_id,
        host=mail_host(address),
        purpose=purpose,
        address=address,
        user=user,
        token_digest=token.digest,
        expires_at=Now() + lifetime_of(AccountMail.Purpose(purpose)),
    )
    return token.value


def invite_for_test(environment: Environment, by: User, address: str, role: str = "viewer") -> str:
    """Writes an invitation and returns the token in its mail."""
    token = issue_token(AccountMail.Purpose.INVITATION, address)
    mail = AccountMail.objects.get(token_digest=digest(token))
    Invitation.objects.create(
        environment=environment,
        email=address,
        role=role,
        invited_by=by,
        mail=mail,
        expires_at=Now() + INVITATION_LIFETIME,
    )
    return token
