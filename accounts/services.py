"""Logs users in and out, changes their passwords, makes users staff, and deactivates them (SPEC §3, §5, §10).

The functions take the `actor` for the audit log. Before a login nobody knows who is calling, so that `actor` has only
the IP address and the id of the request, and the functions add the user's id.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts.authenticators import accept_code
from accounts.emails import Email
from accounts.mail.outbox import hand_over
from accounts.mail.tokens import make_void
from accounts.models import AccountMail, Session, User
from accounts.passwords import check_strength, hash_password, is_password_of
from accounts.proof import EmailTaken, check_proof, is_findable, registered_rights
from accounts.sessions import (
    Device,
    SessionStore,
    end,
    end_sessions,
    open_session,
    open_staff_session,
)
from accounts.throttles import FAILED_LOGIN_ROWS
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Invalid, NotFound, Unauthenticated
from pipedai.api.principal import UserPrincipal
from pipedai.api.throttling import count_hit
from pipedai.events import Actor, Event, emit

Purpose = AccountMail.Purpose
Opened = TypeVar("Opened")

_WRONG = "The e-mail address or the password is wrong."
_WRONG_OR_CODE = "The e-mail address, the password or the code is wrong."


def log_in(
    *, email: Email, password: str, replaces: UserPrincipal | None, device: Device, actor: Actor
) -> tuple[User, Session]:
    """Opens a session for the user with this e-mail address and password. Raises Unauthenticated.

    If the request came with a session, `replaces` names it, and it is ended. A login takes the same time and raises the
    same error whether or not there is such a user, so that nobody learns who has an account.
    """

    def enter(user: User) -> tuple[User, Session]:
        if replaces is not None:
            _revoke(replaces.session_id)
        return user, open_session(user, device)

    return _admit(email, password, actor, enter, _WRONG)


def log_in_staff(
    *, email: Email, password: str, code: str, device: Device, actor: Actor
) -> SessionStore:
    """Opens a session of Django admin for an active staff user. Raises Unauthenticated.

    `code` is a code of the user's authenticator or a recovery code. It is ignored if the user has no authenticator. The
    error does not say what was wrong.
    """

    def enter(user: User) -> SessionStore | None:
        may = user.is_staff and accept_code(user.id, code)
        return open_staff_session(user, device) if may else None

    return _admit(email, password, actor, enter, _WRONG_OR_CODE)


def _admit(
    email: Email,
    password: str,
    actor: Actor,
    enter: Callable[[User], Opened | None],
    refusal: str,
) -> Opened:
    """Returns the session that `enter` opens for the active user with this e-mail address and password. Raises
    Unauthenticated with `refusal` if there is none such, or if `enter` returns None.
    """
    user = User.objects.filter(email=email).first()
    opened = None
    if is_password_of(user, password) and user is not None and user.is_active:
        with transaction.atomic():
            hold_password(user)
            opened = enter(user)
            if opened is not None:
                _emit("user.logged-in", user.id, actor)
    if opened is None:
        note_failed_login(user, email, actor)
        raise Unauthenticated(refusal, code=ErrorCode.WRONG_CREDENTIALS)
    return opened


def log_out(*, principal: UserPrincipal, actor: Actor) -> None:
    """Ends the session on the server, so that a copy of its cookie does not work any more. Does nothing if the session
    has ended already.
    """
    with transaction.atomic():
        if _revoke(principal.session_id):
            _emit("user.logged-out", principal.id, actor)


def log_out_staff(*, user: User, session: SessionBase, actor: Actor) -> None:
    with transaction.atomic():
        session.flush()
        _emit("user.logged-out", user.id, actor)


def change_password(
    *,
    user_id: UUID,
    current_password: str,
    new_password: str,
    actor: Actor,
    enter: Callable[[User], Opened],
) -> Opened:
    """Sets a new password, ends all sessions of the user in the API and in Django admin, and returns the one that
    `enter` opens for the caller.

    Raises Invalid for a wrong current password and for a weak new one.
    """
    user = User.objects.get(id=user_id)
    if not is_password_of(user, current_password):
        raise Invalid({"currentPassword": ["Not your password."]})
    check_strength(new_password, user, field="newPassword")
    hashed = hash_password(new_password)
    with transaction.atomic():
        hold_password(user)
        User.objects.filter(id=user.id).update(password=hashed)
        user.password = hashed
        end_sessions(user.id)
        # Tokens for a new password or another address become void, because somebody who knew the old password may have
        # asked for them.
        make_void(Q(user_id=user.id, purpose__in=(Purpose.RESET, Purpose.CHANGE)))
        session = enter(user)
        _emit("user.password-changed", user.id, actor)
    return session


def create_user(*, email: Email, password: str, name: str, actor: Actor) -> User:
    """Makes a user at an operator's request. The address counts as proved, because the operator vouches for it.

    Raises Invalid for a weak password, EmailTaken for a taken address.
    """
    return _create(User(email=email, name=name), password, "user.registered", actor)


def create_user_with_link(
    *, email: Email, password: str, name: str, actor: Actor
) -> tuple[User, str]:
    """Makes a user as `create_user` does. Returns the user with a link by which somebody sets another password once, to
    hand over.
    """
    with transaction.atomic():
        user = create_user(email=email, password=password, name=name, actor=actor)
        _, link = hand_over(Purpose.RESET, address=user.email, user_id=user.id)
    return user, link


def create_staff(*, email: Email, password: str, name: str, actor: Actor) -> User:
    """Makes a staff user, whose address counts as proved. Raises the errors of `create_user`.

    There is one kind of staff: a user with `is_staff` may do everything that Django admin offers.
    """
    return _create(User(email=email, name=name, is_staff=True), password, "staff.created", actor)


def promote_to_staff(*, email: Email, actor: Actor) -> bool:
    """Makes an active user staff, with the password that they have. Returns False if they were staff already.

    Raises NotFound for an e-mail address without an active user, and Conflict for an address that nobody has proved,
    while proof counts.
    """
    with transaction.atomic():
        user = (
            User.objects.select_for_update(no_key=True).filter(email=email, is_active=True).first()
        )
        if user is None:
            raise NotFound
        if user.is_staff:
            return False
        check_proof(user)
        User.objects.filter(id=user.id).update(is_staff=True)
        emit(Event("staff.created", actor, None, "user", user.id, {"promoted": True}))
        return True


def find_user(email: Email) -> User:
    """Returns the active user with exactly this e-mail address. Raises NotFound.

    While proof counts, a user who has not proved the address is not found, unless they registered when it did not.
    """
    user = User.objects.filter(email=email, is_active=True).first()
    if user is None or not is_findable(user):
        raise NotFound
    return user


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
    user.refresh_from_db(fields=["email_verified_at"])
    return user


def hold_password(user: User) -> None:
    """Keeps the password that was just verified from being changed until the transaction ends. Otherwise a session
    opened with the old password could outlive the change. Raises Unauthenticated if the password has changed since it
    was verified.
    """
    unchanged = User.objects.select_for_update(no_key=True).filter(
        id=user.id, password=user.password, is_active=True
    )
    if not unchanged.exists():
        raise Unauthenticated(_WRONG, code=ErrorCode.WRONG_CREDENTIALS)


def note_failed_login(user: User | None, email: Email, actor: Actor) -> None:
    """Writes an audit row for a failed login to a known account: at most one a minute for each account and IP address,
    so that nobody can fill the audit log.
    """
    hits, _ = count_hit(FAILED_LOGIN_ROWS, f"{actor.ip} {email}")
    if user is not None and hits <= FAILED_LOGIN_ROWS.limit:
        with transaction.atomic():
            emit(Event("user.login-failed", actor, None, "user", user.id))


def _emit(action: str, user_id: UUID, actor: Actor) -> None:
    """Emits an event whose actor and target are the same user."""
    emit(Event(action, replace(actor, id=user_id), None, "user", user_id))


def _revoke(session_id: UUID) -> bool:
    return end(Session.objects.filter(id=session_id, revoked_at__isnull=True)) == 1


def deactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Deactivates the user, who can't log in any more. All their sessions and unused `wrk_` keys end at once.

    The user's memberships stay, and so do `pwk_` keys, because they belong to environments. Does nothing if the user is
    deactivated already. Raises NotFound if there is no such user.
    """
    with transaction.atomic():
        if not _set_active(user_id, active=False):
            return
        end_sessions(user_id)
        emit(Event("user.deactivated", actor, None, "user", user_id))
        registered_rights().end_of_deactivated(user_id, actor)


def reactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Lets a deactivated user log in again. Does nothing if the user is active. Raises NotFound if there is no such
    user.
    """
    with transaction.atomic():
        if _set_active(user_id, active=True):
            emit(Event("user.reactivated", actor, None, "user", user_id))


def _set_active(user_id: UUID, *, active: bool) -> bool:
    """Activates or deactivates the user, and locks the user's row until the transaction ends. Returns whether the
    user's state changed. Raises NotFound if there is no such user.
    """
    user = User.objects.filter(id=user_id)
    if user.filter(is_active=not active).update(is_active=active):
        return True
    if not user.exists():
        raise NotFound
    return False
