"""Registers users, even with an address that another person registered but never confirmed."""

from dataclasses import replace

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.addresses import (
    EmailTaken,
    displace,
    keeps_address,
    lock_holder,
    proof_counts,
    registered_rights,
)
from accounts.emails import Email
from accounts.mails import LinkUnusable, Purpose, find_mail, make_void, queue_mail, use_up
from accounts.models import AccountMail, Session, User
from accounts.passwords import check_passwords_are_on, check_strength, hash_password
from accounts.sessions import Device, open_session
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Forbidden, Invalid
from pipedai.events import Actor, Event, emit
from pipedai.outgoing.mails import mail_is_on

_UNPROVED = (
    "Somebody registered this e-mail address and never confirmed it. If it is yours, open the link in the mail that"
    " has been sent to it."
)
_REFUSALS = {
    "invited": "Only who is invited may register with this service: open the link of your invitation.",
    "closed": "Nobody may register with this service: ask its operator for an account.",
}


class RegistrationClosed(Forbidden):
    """403: the setting REGISTRATION does not let the caller register. The message is the same for every address."""

    def __init__(self) -> None:
        super().__init__(_REFUSALS[settings.REGISTRATION], code=ErrorCode.REGISTRATION_CLOSED)


def check_registration(*, invited: bool) -> None:
    """Raises RegistrationClosed if the setting does not let people register, with or without an invitation."""
    if settings.REGISTRATION == "closed" or (settings.REGISTRATION == "invited" and not invited):
        raise RegistrationClosed


def register_user(
    *,
    email: Email,
    password: str,
    name: str,
    registration_token: str | None = None,
    invitation_token: str | None = None,
    device: Device,
    actor: Actor,
) -> tuple[User, Session]:
    """Makes a user and logs them in. Raises RegistrationClosed, SsoOnly, Invalid for a weak password, and Conflict for
    a taken e-mail address.

    A token from a mail confirms the address, and an account that has the address unconfirmed loses it. Without a token,
    if the address is taken but not confirmed, a mail with a token goes to the address, and the error says so.
    """
    check_passwords_are_on()
    check_registration(invited=invitation_token is not None)
    mail = _proof_of(email, registration_token, invitation_token)
    user = User(email=email, name=name, must_prove_email=proof_counts())
    check_strength(password, user, field="password")
    user.password = hash_password(password)
    actor = replace(actor, id=user.id)
    try:
        with transaction.atomic():
            if mail is not None:
                holder = lock_holder(mail.address, mail=mail)
                use_up(mail)
                if holder is not None:
                    displace(holder, actor=actor)
                user.email_verified_at = Now() if mail.proves_address else None
            user.save(force_insert=True)
            emit(Event("user.registered", actor, None, "user", user.id))
            if mail is not None:
                if mail.purpose == Purpose.INVITATION:
                    registered_rights().accept(mail, user, actor)
                make_void(Q(address=email, purpose=Purpose.REGISTRATION))
            elif mail_is_on():
                queue_mail(Purpose.VERIFY, address=email, user_id=user.id)
            session = open_session(user, device)
    except IntegrityError:
        raise _taken(email) from None
    return user, session


def _proof_of(email: Email, registration: str | None, invitation: str | None) -> AccountMail | None:
    """Returns the mail whose token came with the request, or None without a token. Raises LinkUnusable if the mail went
    to another address. While proof counts, a token that was handed over proves nothing, so it raises the same.
    """
    if registration is not None and invitation is not None:
        raise Invalid(form=["Send either registrationToken or invitationToken."])
    if registration is not None:
        mail = find_mail(registration, Purpose.REGISTRATION)
    elif invitation is not None:
        mail = find_mail(invitation, Purpose.INVITATION)
    else:
        return None
    if mail.address != email or (proof_counts() and not mail.proves_address):
        raise LinkUnusable
    return mail


def _taken(email: Email) -> Conflict:
    """Returns the error for a taken address. If the address is unconfirmed, mails it a link to register with."""
    holder = User.objects.filter(email=email).first()
    if holder is None or keeps_address(holder):
        return EmailTaken()
    with transaction.atomic():
        queue_mail(Purpose.REGISTRATION, address=holder.email, user_id=holder.id)
    return Conflict(_UNPROVED, code=ErrorCode.ADDRESS_UNPROVED)
