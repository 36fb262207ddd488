"""Gives a new password to users who have forgotten theirs (SPEC §15)."""

from dataclasses import replace

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts.emails import Email
from accounts.mail.outbox import queue_mail
from accounts.mail.tokens import LinkUnusable, find_mail, make_void, use_up
from accounts.models import AccountMail, User
from accounts.passwords import check_strength, hash_password
from accounts.proof import check_mail_is_on, proof_counts
from accounts.sessions import end_sessions
from pipedai.events import Actor, Event, emit

Purpose = AccountMail.Purpose


def forget_password(*, email: Email) -> None:
    """Queues the mail with which the owner of an address gets a new password. Raises Conflict while the service sends
    no mail.

    The function makes the same statements for every address, so that nobody learns from its duration who has an
    account. A mail for an address without an account is queued too, and the sender gives it up. An account that never
    proved its address gets no new password: the owner of the address gets a mail with which they make an account of
    their own, if anybody may register.
    """
    check_mail_is_on()
    user = User.objects.filter(email=email).first()
    purpose = Purpose.RESET
    unproved = user is not None and proof_counts() and not user.has_proved_email
    if unproved and settings.REGISTRATION == "open":
        purpose = Purpose.REGISTRATION
    elif unproved or (user is not None and not user.is_active):
        user = None
    with transaction.atomic():
        queue_mail(purpose, address=email, user_id=user.id if user else None)


def reset_password(*, token: str, new_password: str, actor: Actor) -> None:
    """Sets the password and ends all sessions. Raises LinkUnusable, and Invalid, which leaves the token usable."""
    mail = find_mail(token, Purpose.RESET)
    if mail.user is None:
        raise LinkUnusable
    user = mail.user
    check_strength(new_password, user, field="newPassword")
    hashed = hash_password(new_password)
    with transaction.atomic():
        # The row is read again under the lock: meanwhile the account may have got another address, or been deactivated.
        held = (
            User.objects.select_for_update(no_key=True)
            .filter(id=user.id, email=mail.address, is_active=True)
            .first()
        )
        if held is None or (proof_counts() and not held.has_proved_email):
            raise LinkUnusable
        use_up(mail)
        User.objects.filter(id=held.id).update(password=hashed)
        end_sessions(held.id)
        make_void(Q(user_id=held.id, purpose__in=(Purpose.RESET, Purpose.CHANGE)))
        emit(Event("user.password-reset", replace(actor, id=held.id), None, "user", held.id))
