"""Registers users, logs them in and out (SPEC §3, §5)."""

from dataclasses import replace
from uuid import UUID

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from accounts.models import Session, User, normal_email
from accounts.session_tokens import LIFETIME
from pipedai.api.errors import Conflict, Invalid, Unauthenticated
from pipedai.api.principal import UserPrincipal
from pipedai.events import Actor, Event, emit

_WRONG = "The e-mail address or the password is wrong."


def register_user(*, email: str, password: str, name: str, actor: Actor) -> tuple[User, Session]:
    """A new user, logged in. Raises Invalid for a weak password, Conflict for a taken address.

    `actor` carries the address and the request id, here as below; its id is filled in by the service.
    """
    user = User(email=normal_email(email), name=name)
    _check_password_strength(password, user)
    user.password = make_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
            session = _open_session(user)
            _emit("user.registered", user.id, actor)
    except IntegrityError:
        raise Conflict("This e-mail address is already registered.") from None
    return user, session


def log_in(
    *, email: str, password: str, replaces: UserPrincipal | None, actor: Actor
) -> tuple[User, Session]:
    """A new session for the user with this address and password. Raises Unauthenticated.

    The session presented with the request (`replaces`) ends. It takes as long, and says the same,
    whether or not there is such a user.
    """
    user = User.objects.filter(email=normal_email(email)).first()
    if user is None:
        make_password(password)
        raise Unauthenticated(_WRONG)
    if not check_password(password, user.password) or not user.is_active:
        raise Unauthenticated(_WRONG)
    with transaction.atomic():
        if replaces is not None:
            _revoke(replaces.session_id)
        session = _open_session(user)
        _emit("user.logged-in", user.id, actor)
    return user, session


def log_out(*, principal: UserPrincipal, actor: Actor) -> None:
    """Revokes the session: a copy of its cookie is dead too. Nothing happens if it has ended already."""
    with transaction.atomic():
        if _revoke(principal.session_id):
            _emit("user.logged-out", principal.id, actor)


def _emit(action: str, user_id: UUID, actor: Actor) -> None:
    """Users act on themselves here, and before a login nobody knows who they are."""
    emit(Event(action, replace(actor, id=user_id), None, "user", user_id))


def _open_session(user: User) -> Session:
    return Session.objects.create(user=user, expires_at=Now() + LIFETIME)


def _revoke(session_id: UUID) -> bool:
    live = Session.objects.filter(id=session_id, revoked_at__isnull=True)
    return live.update(revoked_at=Now()) == 1


def _check_password_strength(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid({"password": error.messages}) from None
