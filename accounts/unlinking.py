"""Ends links of accounts to the issuer: for their users, for staff, and by the button of a mail."""

from dataclasses import replace
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.addresses import displace, keeps_address, lock_holder
from accounts.mails import UNDOING, Purpose, find_mail, make_void, queue_mail, use_up
from accounts.models import Identity, Session, User
from accounts.passwords import SsoOnly, hold_password, is_password_of
from accounts.sessions import end, end_sessions, has_just_signed_in
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Forbidden, Invalid, NotFound, or_not_found
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor, Event, emit
from pipedai.outgoing.mails import mail_is_on


def end_link(user_id: UUID, *, actor: Actor) -> bool:
    """Ends the user's link and the sessions that began by it, and tells the user by mail. Returns whether there was a
    link. The caller has locked the user, so that no sign-in by the link goes on.
    """
    issuer = _delete_link(user_id)
    if issuer is None:
        return False
    end(Session.objects.filter(user_id=user_id, began=Session.Began.SSO, revoked_at__isnull=True))
    if mail_is_on():
        address = User.objects.values_list("email", flat=True).get(id=user_id)
        queue_mail(Purpose.UNLINK_NOTICE, address=address, user_id=user_id)
    emit(Event("user.unlinked", actor, None, "user", user_id, {"issuer": issuer}))
    return True


def unlink(*, principal: UserPrincipal, password: str, actor: Actor) -> bool:
    """Ends the caller's link. Returns whether their session goes on. The caller needs their password, or a session that
    has just begun by it. Raises SsoOnly, Invalid for a wrong password, Forbidden without any, and NotFound.
    """
    _check_not_only()
    user = User.objects.get(id=principal.id)
    if password:
        if not is_password_of(user, password):
            raise Invalid({"password": ["Not your password."]})
    elif not has_just_signed_in(principal.session_id, began=Session.Began.PASSWORD):
        raise Forbidden(
            "This needs your password, or a sign-in of the last five minutes by it.",
            code=ErrorCode.SIGN_IN_AGAIN,
        )
    with transaction.atomic():
        hold_password(user)
        if not end_link(user.id, actor=actor):
            raise NotFound
        return Session.objects.filter(id=principal.session_id, revoked_at__isnull=True).exists()


def unlink_for_staff(*, user_id: UUID, actor: Actor) -> None:
    """Ends a user's link. Raises NotFound if there is no such user."""
    with transaction.atomic():
        or_not_found(User.objects.select_for_update(no_key=True).filter(id=user_id).first())
        end_link(user_id, actor=actor)


def undo_link(*, token: str, actor: Actor) -> None:
    """Undoes a link by the token of the mail that told of it. All sessions end, the password is void, and the account
    has the address to which the mail went. Raises LinkUnusable, SsoOnly.
    """
    _check_not_only()
    mail = find_mail(token, *UNDOING)
    assert mail.user_id is not None, "the mail is about an account"
    with transaction.atomic():
        holder = lock_holder(mail.address, mail.user_id, mail=mail)
        user = User.objects.get(id=mail.user_id)
        use_up(mail)
        issuer = _delete_link(user.id)
        end_sessions(user.id)
        # Earlier mails of this kind still work. Otherwise an attacker, to whose address the account has followed, could
        # undo the next change there, and the owner's earlier mail would be void.
        make_void(Q(user_id=user.id) & ~Q(purpose__in=UNDOING, created_at__lt=mail.created_at))
        user.set_unusable_password()
        changes = {"email": mail.address, "email_verified_at": Now(), "password": user.password}
        if holder is not None and holder.id != user.id:
            if keeps_address(holder):
                # Somebody has registered with it since. The address that the issuer told must not open the account.
                changes = {"email_verified_at": None, "password": user.password}
            else:
                displace(holder, actor=replace(actor, id=user.id))
        User.objects.filter(id=user.id).update(**changes)
        told = {"issuer": issuer, "emailChanged": changes.get("email", user.email) != user.email}
        emit(Event("user.link-undone", replace(actor, id=user.id), None, "user", user.id, told))


def _check_not_only() -> None:
    if settings.OIDC_ONLY:
        raise SsoOnly("Only the people who run this service end links here: ask them.")


def _delete_link(user_id: UUID) -> str | None:
    """Deletes the user's link. Returns its issuer, or None if there was no link."""
    link = Identity.objects.filter(user_id=user_id)
    issuer = link.values_list("issuer", flat=True).first()
    link.delete()
    return issuer
