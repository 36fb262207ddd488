"""What users change about their own account besides its address and password, and how they delete it."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from accounts.addresses import DELETED, free_address, registered_rights
from accounts.authenticators import remove_authenticator
from accounts.models import User
from accounts.passwords import is_password_of
from accounts.sessions import has_just_signed_in, session_ended
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Forbidden, Invalid
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor, Event, emit


def update_account(*, principal: UserPrincipal, values: dict[str, Any], actor: Actor) -> User:
    """Changes the user's name and time zone. The audit row names the changed fields, without their values."""
    with transaction.atomic():
        user = _locked(principal.id)
        changed = sorted(name for name in values if values[name] != getattr(user, name))
        if changed:
            User.objects.filter(id=user.id).update(**values)
            emit(Event("user.updated", actor, None, "user", user.id, {"changed": changed}))
    return User.objects.get(id=principal.id)


def has_password(user: User) -> bool:
    """Returns whether the user has a password and may use it."""
    return user.has_usable_password() and (not settings.OIDC_ONLY or user.password_allowed)


def delete_account(*, principal: UserPrincipal, password: str, actor: Actor) -> None:
    """Deletes an account: ends the user's rights, and frees their address. The row stays without the address, because
    other rows refer to it. Raises Invalid for a wrong password, Forbidden if there is none and the session is too old,
    and Conflict for a last owner.
    """
    user = User.objects.get(id=principal.id)
    if not has_password(user):
        if not has_just_signed_in(principal.session_id):
            raise Forbidden(
                "Sign in again first: this needs a sign-in of the last five minutes.",
                code=ErrorCode.SIGN_IN_AGAIN,
            )
    elif not is_password_of(user, password):
        raise Invalid({"password": ["Not your password."]})
    erase_account(user_id=user.id, verified=user.password, actor=actor)


def erase_account(*, user_id: UUID, verified: str | None = None, actor: Actor) -> None:
    """Does what `delete_account` does, for a caller who has checked that the user wants it. Nothing is erased if the
    user has another password by now than the hash `verified`, because its change ended the session that asks.
    """
    with transaction.atomic():
        registered_rights().lock(user_id, None)
        user = _locked(user_id)
        if verified is not None and user.password != verified:
            raise session_ended()
        registered_rights().end_of_deleted(user.id, actor)
        remove_authenticator(user.id, actor=actor)
        free_address(user.id, DELETED)
        user.set_unusable_password()
        erased = {"name": "", "timezone": None, "is_staff": False, "email_verified_at": None}
        User.objects.filter(id=user.id).update(password=user.password, **erased)
        emit(Event("user.deleted", actor, None, "user", user.id))


def _locked(user_id: UUID) -> User:
    """Returns the user, locked, so that nobody changes them or gives them anything until the transaction ends."""
    user = User.objects.select_for_update().filter(id=user_id, is_active=True).first()
    if user is None:
        raise session_ended()
    return user
