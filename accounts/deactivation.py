"""Deactivates and reactivates users (SPEC §3). Sessions and keys that a deactivation ended stay ended."""

from collections.abc import Callable
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from accounts.models import Session, User
from accounts.staff_sessions import end_staff_sessions
from pipedai.api.errors import NotFound
from pipedai.events import Actor, Event, emit

_consequences: list[Callable[[UUID, Actor], None]] = []


def register_consequence(end: Callable[[UUID, Actor], None]) -> None:
    """Registers `end(user_id, actor)`, which ends what another app has that must not outlive its user.

    It is called in the transaction that deactivates the user, after their row is locked. Call this from
    `AppConfig.ready()`.
    """
    _consequences.append(end)


def deactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Deactivates the user, who can't log in any more. All their sessions and unused `wrk_` keys end at once.

    Memberships and `pwk_` keys, which belong to environments, stay. Does nothing to a user who is
    deactivated already. Raises NotFound.
    """
    with transaction.atomic():
        if not _set_active(user_id, active=False):
            return
        Session.objects.filter(user_id=user_id, revoked_at__isnull=True).update(revoked_at=Now())
        end_staff_sessions(user_id)
        emit(Event("user.deactivated", actor, None, "user", user_id))
        for end in _consequences:
            end(user_id, actor)


def reactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """Lets the user log in again. Does nothing to a user who is active. Raises NotFound."""
    with transaction.atomic():
        if _set_active(user_id, active=True):
            emit(Event("user.reactivated", actor, None, "user", user_id))


def _set_active(user_id: UUID, *, active: bool) -> bool:
    """Returns whether that changed anything, and locks the row until the transaction ends. Raises NotFound."""
    user = User.objects.filter(id=user_id)
    if user.filter(is_active=not active).update(is_active=active):
        return True
    if not user.exists():
        raise NotFound
    return False
