"""Logs staff in to Django admin and out of it (SPEC §10).

As in the API's login, the number of tries is limited, only a few passwords are hashed at once, and an error does not
say what was wrong.
"""

from dataclasses import replace
from typing import Any

from django.db import transaction

from accounts.authenticators import accept_code
from accounts.emails import Email
from accounts.models import User
from accounts.passwords import is_password_of
from accounts.services import hold_password, note_failed_login, replace_password
from accounts.staff_sessions import SessionStore, open_staff_session
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unauthenticated
from pipedai.events import Actor, Event, emit

_WRONG = "The e-mail address, the password or the code is wrong."


def log_in_staff(
    *, email: Email, password: str, code: str, address: bytes, actor: Actor
) -> SessionStore:
    """Opens an admin session for an active staff user. Raises Unauthenticated, or Overloaded if too many passwords are
    being hashed.

    `code` is a code of the user's authenticator or a recovery code. It is ignored if the user has no authenticator.
    """
    user = User.objects.with_address(email).first()
    session = None
    if is_password_of(user, password) and user is not None and user.is_active and user.is_staff:
        with transaction.atomic():
            hold_password(user)
            if accept_code(user.id, code):
                session = open_staff_session(user, address)
                emit(_event("user.logged-in", user, actor))
    if session is None:
        note_failed_login(user, email, actor)
        raise Unauthenticated(_WRONG, code=ErrorCode.WRONG_CREDENTIALS)
    return session


def log_out_staff(*, user: User, session: Any, actor: Actor) -> None:
    """Ends the admin session with which the request came."""
    with transaction.atomic():
        session.flush()
        emit(_event("user.logged-out", user, actor))


def change_staff_password(
    *, user: User, current_password: str, new_password: str, address: bytes, actor: Actor
) -> SessionStore:
    """Sets a new password, ends all sessions of the user and opens a new admin session. Raises Invalid for a wrong
    current password and for a weak new one.
    """
    return replace_password(
        user_id=user.id,
        current_password=current_password,
        new_password=new_password,
        actor=actor,
        open_session=lambda changed: open_staff_session(changed, address),
    )


def _event(action: str, user: User, actor: Actor) -> Event:
    """Makes an event whose actor and target are the same staff user."""
    return Event(action, replace(actor, id=user.id), None, "user", user.id)
