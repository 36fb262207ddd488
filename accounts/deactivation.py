"""Deactivates users and brings them back (SPEC §3): what dies with a user stays dead afterwards."""

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
    """`end(user_id, actor)` ends what another app lets live only with its user, in the transaction that
    deactivates them and after it has locked their row. Call it from `AppConfig.ready()`."""
    _consequences.append(end)


def deactivate_user(*, user_id: UUID, actor: Actor) -> None:
    """The user can't log in any more; every session and every unused `wrk_` key of theirs is dead at once.

    Memberships and `pwk_` keys, which belong to environments, stay. Nothing happens to a user who is
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
    """The user may log in again. Nothing happens to one who is active. Raises NotFound."""
    with transaction.atomic():
        if _set_active(user_id, active=True):
            emit(Event("user.reactivated", actor, None, "user", user_id))


def _set_active(user_id: UUID, *, active: bool) -> bool:
    """Whether that changed anything. The row stays locked until the transaction ends. Raises NotFound."""
    user = User.objects.filter(id=user_id)
    if user.filter(is_active=not active).update(is_active=active):
        return True
    if not user.exists():
        raise NotFound
    return False
