"""Logs users in and out, gives them new passwords, makes users and staff, and deactivates them.

Before a login the `actor` has only the IP address and the request's id; the functions add the user's id.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.addresses import (
    EmailTaken,
    check_mail_is_on,
    check_proof,
    is_findable,
    proof_counts,
    registered_rights,
)
from accounts.authenticators import accept_code
from accounts.emails import Email
from accounts.mails import (
    LinkUnusable,
    Purpose,
    find_mail,
    hand_over,
    make_void,
    queue_mail,
    use_up,
)
from accounts.models import Session, User
from accounts.passwords import (
    WRONG,
    check_passwords_are_on,
    check_strength,
    hash_password,
    hold_password,
    is_password_of,
)
from accounts.sessions import (
    Device,
    SessionStore,
    end,
    end_sessions,
    open_session,
    open_staff_session,
)
from accounts.throttles import FAILED_LOGIN_ROWS
from accounts.unlinking import end_link
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Invalid, NotFound, Unauthenticated, or_not_found
from pipedai.api.principal import UserPrincipal
from pipedai.api.throttling import count_hit
from pipedai.events import Actor, Event, emit

Opened = TypeVar("Opened")
WRONG_OR_CODE = "The e-mail address, the password or the code is wrong."


def log_in(
    *, email: Email, password: str, replaces: UserPrincipal | None, device: Device, actor: Actor
) -> tuple[User, Session]:
    """Opens a session, and ends the session that `replaces` names. Raises Unauthenticated, for an unknown user with the
    same sentence and after the same time, and SsoOnly.
    """
    check_passwords_are_on()

    def enter(user: User) -> tuple[User, Session]:
        if replaces is not None:
            revoke(replaces.session_id)
        return user, open_session(user, device)

    return admit(email, password, actor, enter, WRONG)


def log_in_staff(
    *, email: Email, password: str, code: str, device: Device, actor: Actor
) -> SessionStore:
    """Opens a session of Django admin. `code` is from the authenticator or a recovery code; it is ignored for a user
    without an authenticator. Raises Unauthenticated, which does not say what was wrong.
    """

    def enter(user: User) -> SessionStore | None:
        if settings.OIDC_ONLY and not user.password_allowed:
            return None
        may = user.is_staff and accept_code(user.id, code)
        return open_staff_session(user, device) if may else None

    return admit(email, password, actor, enter, WRONG_OR_CODE)


def admit(
    email: Email,
    password: str,
    actor: Actor,
    enter: Callable[[User], Opened | None],
    refusal: str,
) -> Opened:
    """Returns the session that `enter` opens. If it opens none, raises Unauthenticated with the sentence `refusal`."""
    user = User.objects.filter(email=email).first()
    opened = None
    if is_password_of(user, password) and user is not None and user.is_active:
        with transaction.atomic():
            hold_password(user)
            opened = enter(user)
            if opened is not None:
                emit_own("user.logged-in", user.id, actor)
    if opened is None:
        note_failed_login(user, email, actor)
        raise Unauthenticated(refusal, code=ErrorCode.WRONG_CREDENTIALS)
    return opened


def log_out(*, principal: UserPrincipal, actor: Actor) -> None:
    """Ends the session on the server, so that a copy of its cookie does not work any more either."""
    with transaction.atomic():
        if revoke(principal.session_id):
            emit_own("user.logged-out", principal.id, actor)


def log_out_staff(*, user: User, session: SessionBase, actor: Actor) -> None:
    with transaction.atomic():
        session.flush()
        emit_own("user.logged-out", user.id, actor)


def change_password(
    *,
    user_id: UUID,
    current_password: str,
    new_password: str,
    actor: Actor,
    enter: Callable[[User], Opened],
) -> Opened:
    """Sets the password, ends the user's sessions, and returns the one that `enter` opens. Raises Invalid, and
    SsoOnly.
    """
    user = User.objects.get(id=user_id)
    check_passwords_are_on(user)
    if not is_password_of(user, current_password):
        raise Invalid({"currentPassword": ["Not your password."]})
    check_strength(new_password, user, field="newPassword")
    hashed = hash_password(new_password)
    with transaction.atomic():
        hold_password(user)
        _set_password(user, hashed, "user.password-changed", actor)
        return enter(user)


def forget_password(*, email: Email) -> None:
    """Queues the mail with which the owner of an address gets a new password. Raises Conflict while the service sends
    no mail.

    The function runs the same statements for every address, so that its duration does not reveal who has an account. A
    mail for an address without an account is queued too, and the sender gives it up. An account that never confirmed
    its address gets no new password: the owner of the address gets a mail with which they make their own account, if
    anybody may register.
    """
    check_passwords_are_on()
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
    """Sets the password, and ends all sessions and the link to the issuer. Raises LinkUnusable, and Invalid, which
    leaves the token usable.
    """
    check_passwords_are_on()
    mail = find_mail(token, Purpose.RESET)
    if mail.user is None:
        raise LinkUnusable
    user = mail.user
    check_strength(new_password, user, field="newPassword")
    hashed = hash_password(new_password)
    with transaction.atomic():
        # The row is read again under the lock, because the account may have got another address or been deactivated.
        held = (
            User.objects.select_for_update(no_key=True)
            .filter(id=user.id, email=mail.address, is_active=True)
            .first()
        )
        if held is None or (proof_counts() and not held.has_proved_email):
            raise LinkUnusable
        use_up(mail)
        _set_password(held, hashed, "user.password-reset", actor)
        end_link(held.id, actor=replace(actor, id=held.id))


def create_user(*, email: Email, password: str, name: str, actor: Actor) -> User:
    """Makes a user for an operator, who vouches for the address. Raises Invalid, EmailTaken."""
    return _create(User(email=email, name=name), password, "user.registered", actor)


def create_user_with_link(
    *, email: Email, password: str, name: str, actor: Actor
) -> tuple[User, str]:
    """Makes a user as `create_user` does. Returns them, and a link with which they set their own password, once."""
    with transaction.atomic():
        user = create_user(email=email, password=password, name=name, actor=actor)
        _, link = hand_over(Purpose.RESET, address=user.email, user_id=user.id)
    return user, link


def create_staff(
    *, email: Email, password: str, name: str, password_allowed: bool = False, actor: Actor
) -> User:
    """Makes a staff user, who may do everything in Django admin. With `password_allowed` they may also use their
    password while OIDC_ONLY is set. Raises the errors of `create_user`.
    """
    user = User(email=email, name=name, is_staff=True, password_allowed=password_allowed)
    return _create(user, password, "staff.created", actor)


def promote_to_staff(*, email: Email, actor: Actor) -> bool:
    """Makes an active user staff, and ends a link to the issuer, because it was made without the second factor. Returns
    False if they already were. Raises NotFound, Conflict if unconfirmed.
    """
    with transaction.atomic():
        user = or_not_found(
            User.objects.select_for_update(no_key=True).filter(email=email, is_active=True).first()
        )
        if user.is_staff:
            return False
        check_proof(user)
        User.objects.filter(id=user.id).update(is_staff=True)
        emit(Event("staff.created", actor, None, "user", user.id, {"promoted": True}))
        end_link(user.id, actor=actor)
        return True


def find_user(email: Email) -> User:
    """Returns the active user with this address. Raises NotFound, also for an unconfirmed one while proof counts."""
    user = User.objects.filter(email=email, is_active=True).first()
    return or_not_found(user if user and is_findable(user) else None)


def deactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Ends the user's sessions and unused `wrk_` keys. Memberships and `pwk_` keys stay. Raises NotFound."""
    with transaction.atomic():
        if not _set_active(user_id, active=False):
            return
        end_sessions(user_id)
        emit(Event("user.deactivated", actor, None, "user", user_id))
        registered_rights().end_of_deactivated(user_id, actor)


def reactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Lets a deactivated user log in again. Raises NotFound if there is no such user."""
    with transaction.atomic():
        if _set_active(user_id, active=True):
            emit(Event("user.reactivated", actor, None, "user", user_id))


def _create(user: User, password: str, action: str, actor: Actor) -> User:
    check_strength(password, user, field="password")
    user.password = hash_password(password)
    user.email_verified_at = Now()
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            emit(Event(action, actor, None, "user", user.id))
    except IntegrityError:
        raise EmailTaken from None
    return user


def _set_active(user_id: UUID, *, active: bool) -> bool:
    """Sets whether the user is active, and locks their row. Returns whether that changed anything. Raises NotFound."""
    user = User.objects.filter(id=user_id)
    if user.filter(is_active=not active).update(is_active=active):
        return True
    if not user.exists():
        raise NotFound
    return False


def _set_password(user: User, hashed: str, action: str, actor: Actor) -> None:
    """Stores the hash of a new password, and ends all sessions and links of the old one."""
    user.password = hashed
    user.save(update_fields=["password"])
    end_sessions(user.id)
    # A person who knew the old password may have requested links that set another password or address.
    make_void(Q(user_id=user.id, purpose__in=(Purpose.RESET, Purpose.CHANGE)))
    emit_own(action, user.id, actor)


def note_failed_login(user: User | None, email: Email, actor: Actor) -> None:
    """Writes at most one audit row a minute for each account and IP address, so that nobody can fill the log."""
    hits, _ = count_hit(FAILED_LOGIN_ROWS, f"{actor.ip} {email}")
    if user is not None and hits <= FAILED_LOGIN_ROWS.limit:
        with transaction.atomic():
            emit(Event("user.login-failed", actor, None, "user", user.id))


def revoke(session_id: UUID) -> bool:
    return end(Session.objects.filter(id=session_id, revoked_at__isnull=True)) == 1


def emit_own(action: str, user_id: UUID, actor: Actor, **metadata: str) -> None:
    emit(Event(action, replace(actor, id=user_id), None, "user", user_id, metadata))
