"""Proves that an address belongs to its account, and gives an account another address (SPEC §15)."""

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.authentication import session_ended
from accounts.emails import Email
from accounts.mail.outbox import queue_mail
from accounts.mail.tokens import LinkUnusable, find_mail, make_void, use_up
from accounts.models import AccountMail, User
from accounts.passwords import is_password_of
from accounts.proof import EmailTaken, check_mail_is_on, displace, keeps_address, lock_holder
from accounts.services import hold_password
from pipedai.api.errors import Invalid
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor, Event, emit

Purpose = AccountMail.Purpose


def verify_email(*, principal: UserPrincipal, token: str, actor: Actor) -> User:
    """Proves the address of the signed-in user by the token of a mail; that of a change moves the account to the new
    address. The caller must be signed in: otherwise a stranger who chose the password could lead the owner to confirm
    it. Raises LinkUnusable, EmailTaken.
    """
    mail = find_mail(token, Purpose.VERIFY, Purpose.CHANGE)
    if mail.user_id != principal.id:
        raise LinkUnusable
    try:
        with transaction.atomic():
            holder = lock_holder(mail, principal.id)
            user = User.objects.get(id=principal.id)
            if not user.is_active:
                raise session_ended()
            use_up(mail)
            if mail.purpose == Purpose.VERIFY:
                _prove(user, mail.address, actor)
            else:
                _move(user, mail.address, holder, actor)
    except IntegrityError:
        raise EmailTaken from None
    return User.objects.get(id=principal.id)


def resend_verification(*, principal: UserPrincipal, actor: Actor) -> None:
    """Sends the mail that proves the user's address once more. Raises Conflict while the service sends no mail."""
    check_mail_is_on()
    user = User.objects.get(id=principal.id)
    if user.has_proved_email:
        return
    with transaction.atomic():
        if queue_mail(Purpose.VERIFY, address=user.email, user_id=user.id) is not None:
            emit(Event("user.verification-requested", actor, None, "user", user.id))


def change_email(
    *, principal: UserPrincipal, new_email: Email, current_password: str, actor: Actor
) -> None:
    """Sends a link to the new address, which becomes the account's when the link is used, and tells the old address.
    Raises Invalid for a wrong password or the present address, EmailTaken, and Conflict while the service sends no
    mail.
    """
    check_mail_is_on()
    user = User.objects.get(id=principal.id)
    if not is_password_of(user, current_password):
        raise Invalid({"currentPassword": ["Not your password."]})
    if user.email == new_email:
        raise Invalid({"newEmail": ["This is your address already."]})
    holder = User.objects.filter(email=new_email).first()
    if holder is not None and keeps_address(holder):
        raise EmailTaken
    with transaction.atomic():
        # This lock keeps the password from changing meanwhile. A new password makes open changes of the address void,
        # and would otherwise miss this one, which was begun with the old password.
        hold_password(user)
        make_void(Q(user_id=user.id, purpose=Purpose.CHANGE))
        queue_mail(Purpose.CHANGE, address=new_email, user_id=user.id)
        queue_mail(
            Purpose.CHANGE_NOTICE,
            address=user.email,
            user_id=user.id,
            facts={"new_address": new_email},
        )
        emit(Event("user.email-change-requested", actor, None, "user", user.id))


def _prove(user: User, address: str, actor: Actor) -> None:
    """Raises LinkUnusable if the account has another address by now."""
    if user.email != address:
        raise LinkUnusable
    if not user.has_proved_email:
        User.objects.filter(id=user.id).update(email_verified_at=Now())
        emit(Event("user.email-verified", actor, None, "user", user.id))


def _move(user: User, address: str, holder: User | None, actor: Actor) -> None:
    """Gives the user an address that they proved, which `holder` loses. Raises EmailTaken if `holder` keeps it."""
    if holder is not None and holder.id != user.id:
        displace(holder, actor=actor)
    User.objects.filter(id=user.id).update(email=address, email_verified_at=Now())
    # Links that were mailed to the old address are made void, because they could set a new password for the account.
    make_void(Q(user_id=user.id))
    emit(Event("user.email-changed", actor, None, "user", user.id))
