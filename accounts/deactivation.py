"""Deactivates and reactivates users (SPEC §3). A reactivated user does not get back the sessions and keys that the
deactivation ended.
"""

from collections.abc import Callable
from uuid import UUID

from django.db import transaction

from accounts.models import User
from accounts.sessions import end_sessions
from pipedai.api.errors import NotFound
from pipedai.events import Actor, Event, emit

_consequences: list[Callable[[UUID, Actor], None]] = []


def register_consequence(end: Callable[[UUID, Actor], None]) -> None:
    """Registers `end(user_id, actor)`, with which another app ends what a deactivated user must not keep, such as keys.

    `end` is called in the transaction that deactivates the user, after the user's row is locked. Call this function
    in the module `ready` of the app.
    """
    _consequences.append(end)


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
        for end in _consequences:
            end(user_id, actor)


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
