"""The proof that an e-mail address belongs to its account, and how an account gets another address.

If another person proves an address that its account has never confirmed, the account is displaced: it is deactivated
and loses its memberships and keys, so that nothing given to the address stays with a stranger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.emails import Email
from accounts.mails import (
    UNDOING,
    LinkUnusable,
    Purpose,
    find_mail,
    has_live_mail,
    make_void,
    queue_mail,
    use_up,
)
from accounts.models import AccountMail, Identity, User
from accounts.passwords import check_passwords_are_on, hold_password, is_password_of
from accounts.sessions import end_sessions, session_ended
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor, Event, emit
from pipedai.outgoing.mails import mail_is_on

# The endings of the placeholders that replace the addresses of displaced and deleted accounts.
_DISPLACED, DELETED = "@displaced.invalid", "@deleted.invalid"


class EmailTaken(Conflict):
    """409: another account has the address and keeps it."""

    def __init__(self) -> None:
        super().__init__("This e-mail address is already registered.", code=ErrorCode.EMAIL_TAKEN)


def proof_counts() -> bool:
    """Returns whether accounts need a confirmed address. Without a mail server nobody could confirm one."""
    return bool(settings.EMAIL_URL)


def is_findable(user: User) -> bool:
    """Returns whether others may find the user by their address and give them something, such as a membership."""
    return user.has_proved_email or not user.must_prove_email or not proof_counts()


def check_proof(user: User) -> None:
    """Raises Conflict if `proof_counts()` is true and the user has not confirmed their e-mail address."""
    if proof_counts() and not user.has_proved_email:
        raise Conflict(
            "This needs a confirmed e-mail address: open the link in the mail, or ask for another one.",
            code=ErrorCode.EMAIL_UNVERIFIED,
        )


def check_mail_is_on() -> None:
    if not mail_is_on():
        raise Conflict(
            "This service sends no mail: its operator has not set EMAIL_URL.",
            code=ErrorCode.MAIL_OFF,
        )


@dataclass(frozen=True, slots=True)
class Rights:
    """The functions by which the app that knows users' rights takes part in changes of accounts."""

    # Locks the rows that come before users in the order of locks (docs/architecture.md), before users are locked. Its
    # arguments are the id of the account that may be displaced or deleted, or None, and the mail whose token is used.
    lock: Callable[[UUID | None, AccountMail | None], None]
    # Accepts the invitation in the mail for a user who has just registered with its token.
    accept: Callable[[AccountMail, User, Actor], None]
    # Ends the rights that the displaced account with this id must not keep.
    end_of_displaced: Callable[[UUID, Actor], None]
    # Ends the rights that the deactivated user with this id must not keep, such as keys. The user's row is locked.
    end_of_deactivated: Callable[[UUID, Actor], None]
    # Ends the rights of the user with this id, who deletes their account. Raises Conflict for a last owner.
    end_of_deleted: Callable[[UUID, Actor], None]


_registered: list[Rights] = []


def register_rights(rights: Rights) -> None:
    _registered[:] = [rights]


def registered_rights() -> Rights:
    return _registered[0]


def keeps_address(holder: User) -> bool:
    return holder.has_proved_email or not proof_counts()


def lock_holder(address: str, *also: UUID, mail: AccountMail | None = None) -> User | None:
    """Returns the account with the address, or None, and locks it and the users in `also`, in the order of ids. `mail`
    is the mail whose token is used, if any. Call it before any other lock. While the account is locked, nobody adds
    rows that refer to it, such as memberships.
    """
    holders = User.objects.filter(email=address)
    holder_id = holders.values_list("id", flat=True).first()
    may_be_displaced = None if holder_id in also else holder_id
    registered_rights().lock(may_be_displaced, mail)
    for user_id in sorted({*also, *([holder_id] if holder_id else [])}):
        weak = user_id in also
        User.objects.select_for_update(no_key=weak).filter(id=user_id).first()
    return holders.first()


def is_displaced(user: User) -> bool:
    """Returns whether the account was displaced or deleted, so that it has a placeholder for its address."""
    return not user.is_active and user.email.endswith((_DISPLACED, DELETED))


def free_address(user_id: UUID, placeholder: str) -> None:
    """Deactivates an account and gives it a placeholder for its address. This ends its sessions, its link to the issuer
    and the tokens in its mails.
    """
    # The placeholder is random, so that nobody can register it beforehand, which would keep the owner of the address
    # from taking it back. Who holds the account knows its id, so the placeholder must not follow from that.
    User.objects.filter(id=user_id).update(email=f"{uuid4()}{placeholder}", is_active=False)
    Identity.objects.filter(user_id=user_id).delete()
    end_sessions(user_id)
    make_void(Q(user_id=user_id))


def displace(holder: User, *, actor: Actor) -> None:
    """Deactivates an account that `lock_holder` has locked, and frees its address. Raises EmailTaken."""
    if keeps_address(holder):
        raise EmailTaken
    free_address(holder.id, _DISPLACED)
    emit(Event("user.displaced", actor, None, "user", holder.id))
    registered_rights().end_of_displaced(holder.id, actor)


def verify_email(*, principal: UserPrincipal, token: str, actor: Actor) -> User:
    """Confirms the address of the signed-in user by the token of a mail. The token of a change moves the account to the
    new address. The caller must be signed in: otherwise a stranger who registered the address, and knows the password,
    could trick its owner into confirming it. Raises LinkUnusable, EmailTaken.
    """
    mail = find_mail(token, Purpose.VERIFY, Purpose.CHANGE)
    if mail.user_id != principal.id:
        raise LinkUnusable
    if mail.purpose == Purpose.CHANGE:
        check_passwords_are_on()
    try:
        with transaction.atomic():
            holder = lock_holder(mail.address, principal.id, mail=mail)
            user = User.objects.get(id=principal.id)
            if not user.is_active:
                raise session_ended()
            use_up(mail)
            if mail.purpose == Purpose.CHANGE:
                if holder is not None and holder.id != user.id:
                    displace(holder, actor=actor)
                User.objects.filter(id=user.id).update(email=mail.address, email_verified_at=Now())
                # Links that were mailed to the old address could set a new password for the account. But once the
                # address has followed the issuer's, its former owner must still be able to undo that.
                followed = has_live_mail(Purpose.FOLLOW_NOTICE, user_id=user.id)
                make_void(Q(user_id=user.id) & (~Q(purpose__in=UNDOING) if followed else Q()))
                emit(Event("user.email-changed", actor, None, "user", user.id))
            elif user.email != mail.address:
                raise LinkUnusable
            elif not user.has_proved_email:
                User.objects.filter(id=user.id).update(email_verified_at=Now())
                emit(Event("user.email-verified", actor, None, "user", user.id))
    except IntegrityError:
        raise EmailTaken from None
    return User.objects.get(id=principal.id)


def resend_verification(*, principal: UserPrincipal, actor: Actor) -> None:
    """Sends the mail that confirms the user's address again. Raises Conflict while the service sends no mail."""
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
    """Sends a link to the new address and a warning to the old one. The account gets the new address when the link is
    used. Raises Invalid for a wrong password or the present address, EmailTaken, and Conflict without mail.
    """
    check_passwords_are_on()
    check_mail_is_on()
    user = User.objects.get(id=principal.id)
    if not is_password_of(user, current_password):
        raise Invalid({"currentPassword": ["Not your password."]})
    if user.email == new_email:
        raise Invalid({"newEmail": ["This is your e-mail address already."]})
    holder = User.objects.filter(email=new_email).first()
    if holder is not None and keeps_address(holder):
        raise EmailTaken
    with transaction.atomic():
        # This lock keeps the password from changing at the same time. A new password makes open changes of the address
        # void, and would otherwise miss this one, which was begun with the old password.
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
