"""Creates workspaces, and creates, changes and deletes environments."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from accounts.models import User
from accounts.sessions import session_ended
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import CeilingReached, Conflict, Invalid
from pipedai.api.renderers import counted
from pipedai.events import Actor, Event, emit
from workspaces.ceilings import PROFILE, held_and_most
from workspaces.encryption.keys import create_data_key
from workspaces.locks import (
    changing,
    close_environment,
    hold_right_to_create_in,
    hold_role,
)
from workspaces.models import Environment, Membership, Workspace
from workspaces.roles import Role

_counts: dict[str, Callable[[UUID], int]] = {}
_NAME_TAKEN = "The workspace has an environment of this name already."


def create_workspace(*, name: str, user_id: UUID, actor: Actor) -> Workspace:
    """Makes a workspace with the user as its creator. Raises Conflict if they have as many workspaces as they may."""
    with transaction.atomic():
        _check_room_for_workspace(user_id)
        workspace = Workspace.objects.create(name=name, created_by_id=user_id)
        emit(Event("workspace.created", actor, None, "workspace", workspace.id, {"name": name}))
    return workspace


def create_environment(
    *, workspace_id: UUID, name: str, user_id: UUID, actor: Actor
) -> Environment:
    """Makes an environment with a data key, and the user its owner. Raises NotFound, Forbidden, Conflict for a taken
    name, and CeilingReached.
    """
    try:
        with transaction.atomic():
            hold_right_to_create_in(workspace_id, user_id)
            _check_room_for_environment(workspace_id, user_id)
            environment = Environment.objects.create(workspace_id=workspace_id, name=name)
            create_data_key(environment.id)
            Membership.objects.create(
                environment=environment, user_id=user_id, role=Role.OWNER.value
            )
            emit(_event("created", environment.id, actor, {"name": name}))
    except IntegrityError:
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None
    return environment


def update_environment(*, environment_id: UUID, values: dict[str, Any], actor: Actor) -> None:
    """Changes the name, the pause and its reason. While an environment is paused, no run is handed out or claimed and
    no schedule makes runs; held runs go on unless `cancel_held`. Raises NotFound, Invalid, and Conflict for a taken
    name.
    """
    try:
        with changing(environment_id, actor, alone=True):
            environment = Environment.objects.get(id=environment_id, deleted_at__isnull=True)
            changes = _apply(environment, values)
            if not changes:
                return
            environment.save(update_fields=["name", "paused_at", "pause_reason"])
            emit(_event("updated", environment_id, actor, changes))
    except IntegrityError:
        raise Conflict(_NAME_TAKEN, code=ErrorCode.NAME_TAKEN) from None


def _apply(environment: Environment, values: dict[str, Any]) -> dict[str, Any]:
    """Sets the values that differ, and returns the changes for the audit row."""
    changes: dict[str, Any] = {}
    if (name := values.get("name", environment.name)) != environment.name:
        changes["name"] = [environment.name, name]
        environment.name = name
    was_paused, old_reason = environment.paused, environment.pause_reason
    is_paused = values.get("paused", was_paused)
    if not is_paused:
        _refuse_without_pause(values)
    if is_paused != was_paused:
        changes["paused"] = [was_paused, is_paused]
        environment.paused_at = Now() if is_paused else None
        environment.pause_reason = None
    if is_paused and "pause_reason" in values:
        environment.pause_reason = values["pause_reason"] or None
    if environment.pause_reason != old_reason:
        changes["pauseReason"] = [old_reason, environment.pause_reason]
    if values.get("cancel_held"):
        changes["cancelHeld"] = True
    return changes


def _refuse_without_pause(values: dict[str, Any]) -> None:
    only = {"pause_reason": "pauseReason", "cancel_held": "cancelHeld"}
    if wrong := [name for attribute, name in only.items() if values.get(attribute)]:
        raise Invalid(
            {name: ["Only for a paused environment: send paused as true."] for name in wrong}
        )


def delete_environment(*, environment_id: UUID, actor: Actor) -> None:
    """Marks an empty environment as deleted: its name becomes free, and its keys stop working. Raises NotFound, and
    Conflict with counts of the rows that it has.
    """
    with transaction.atomic():
        close_environment(environment_id)
        hold_role(actor, environment_id, Role.OWNER)
        held = {name: count(environment_id) for name, count in _counts.items()}
        if what := ", ".join(counted(number, name) for name, number in held.items() if number):
            raise Conflict(f"The environment still has {what}.", code=ErrorCode.HAS_CHILDREN)
        Environment.objects.filter(id=environment_id).update(deleted_at=Now())
        emit(_event("deleted", environment_id, actor, {}))


def register_dependents(name: str, count: Callable[[UUID], int]) -> None:
    """Registers a count of rows that keep an environment from being deleted. `name` is their kind, in the singular."""
    _counts[name] = count


def _check_room_for_workspace(user_id: UUID) -> None:
    limit = PROFILE["workspaces"]
    _lock_user(user_id)
    if Workspace.objects.filter(created_by_id=user_id).count() >= limit:
        raise CeilingReached(
            "workspaces", f"You have created {limit} workspaces, as many as you may."
        )


def _check_room_for_environment(workspace_id: UUID, user_id: UUID) -> None:
    _lock_user(user_id)
    owned = Membership.objects.filter(
        user_id=user_id, role=Role.OWNER, environment__deleted_at__isnull=True
    )
    held, limit = held_and_most("environments", Workspace.objects.filter(id=workspace_id), owned)
    if held >= limit:
        raise CeilingReached("environments", f"You own {limit} environments, as many as you may.")


def _lock_user(user_id: UUID) -> None:
    """Locks the user's row, so that two requests don't count the user's rows at once. Raises Unauthenticated."""
    active = User.objects.select_for_update(no_key=True).filter(id=user_id, is_active=True)
    if not active.exists():
        raise session_ended()


def _event(action: str, environment_id: UUID, actor: Actor, metadata: dict[str, Any]) -> Event:
    name = f"environment.{action}"
    return Event(name, actor, environment_id, "environment", environment_id, metadata)
